"""`streamproc score …` from outside: files in, one JSON document or tables out, warnings beside it, honest exit codes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamproc.cli import build
from streamproc.cli.frame import exit_code
from streamproc.formats import submission
from streamproc.formats.soccernet import LABELS, Spot
from streamproc.stages.ensemble.votes import Calibration
from tests.score import official
from tests.score.test_dashcam import CLIP, OTHER

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--draws", 0)
GAMES = official.made_up(11, games=6, predictions=80, labels=60)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command's exit code, what it printed, and what it said beside it."""

    def score(*arguments: object) -> tuple[int, str, str]:
        code = exit_code(build(), ["score", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return score


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    official.write(tmp_path, GAMES)
    return tmp_path


def spotting(folder: Path, *more: object) -> tuple[object, ...]:
    return "spotting", "--labels", folder / "labels", "--predictions", folder / "predictions", *more


def asked(run: Run, *arguments: object) -> tuple[dict[str, Any], str]:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out), err


# spotting -----------------------------------------------------------------------------------------------------------


def test_the_document_has_the_official_numbers_by_metric_and_class(run: Run, folder: Path) -> None:
    found, _ = asked(run, *spotting(folder, *QUICK))
    theirs = official.evaluate(folder, metric="at5")
    assert found["at5"]["mAP"] == pytest.approx(theirs["a_mAP"], abs=1e-12)
    assert found["at5"]["visible"] == pytest.approx(theirs["a_mAP_visible"], abs=1e-12)
    assert found["at5"]["unshown"] == pytest.approx(theirs["a_mAP_unshown"], abs=1e-12)
    assert list(found["at5"]["per_class"]) == list(LABELS)
    assert list(found["at5"]["per_class"].values()) == pytest.approx(list(theirs["a_mAP_per_class"]), abs=1e-12)
    assert {"loose", "tight", "at1", "at2", "at3", "at4", "at5"} <= found.keys()


def test_a_seed_makes_intervals_repeatable_and_they_hold_their_number(run: Run, folder: Path) -> None:
    first, again, other = (asked(run, *spotting(folder, "--seed", s, "--draws", 10))[0] for s in (1, 1, 2))
    assert first == again
    assert first["intervals"] != other["intervals"]
    low, high = first["intervals"]["loose"]["mAP"]
    assert low <= first["loose"]["mAP"] <= high
    low, high = first["found"]["intervals"]["f1"]
    assert low <= first["found"]["f1"] <= high


def test_a_game_without_predictions_lowers_the_score_and_is_named(run: Run, folder: Path) -> None:
    before, _ = asked(run, *spotting(folder, *QUICK))
    (folder / "predictions" / "league" / "season" / "game 002" / "results_spotting.json").unlink()
    after, err = asked(run, *spotting(folder, *QUICK))
    assert after["loose"]["mAP"] < before["loose"]["mAP"]
    assert after["games"] == before["games"]
    assert "game without predictions" in err
    assert "game 002" in err


def test_predictions_for_other_games_are_counted_and_change_nothing(run: Run, folder: Path) -> None:
    before, _ = asked(run, *spotting(folder, *QUICK))
    official.write(folder / "more", {"elsewhere": next(iter(GAMES.values()))})
    (folder / "more" / "predictions" / "elsewhere").rename(folder / "predictions" / "elsewhere")
    after, err = asked(run, *spotting(folder, *QUICK))
    assert after["loose"] == before["loose"]
    assert "1 × predictions for a game without labels" in err
    assert after["problems"][0]["what"].startswith("predictions for a game without labels")


def test_only_the_games_that_were_named_are_scored(run: Run, folder: Path) -> None:
    names = folder / "names.txt"
    names.write_text("league/season/game 001\nleague/season/game 003\n")
    by_file, err = asked(run, *spotting(folder, "--games", names, *QUICK))
    by_pattern, _ = asked(run, *spotting(folder, "--games", "*001, *003", *QUICK))
    assert by_file == by_pattern
    assert by_file["games"] == 2
    assert "without labels" not in err
    names.write_text("[3]")
    assert run(*spotting(folder, "--games", names))[0] == 1
    code, _, err = run(*spotting(folder, "--games", "*/game 009"))
    assert code == 2
    assert "no game is called '*/game 009'" in err


def test_zip_files_are_read_as_folders_are(run: Run, folder: Path) -> None:
    for kind in ("labels", "predictions"):
        with zipfile.ZipFile(folder / f"{kind}.zip", "w") as archive:
            for path in (folder / kind).rglob("*.json"):
                archive.write(path, path.relative_to(folder / kind))
    zipped, _ = asked(
        run, "spotting", "--labels", folder / "labels.zip", "--predictions", folder / "predictions.zip", *QUICK
    )
    plain, _ = asked(run, *spotting(folder, *QUICK))
    assert zipped["loose"] == plain["loose"]


def test_games_may_be_links_and_a_circle_of_them_has_an_end(run: Run, folder: Path) -> None:
    plain, _ = asked(run, *spotting(folder, *QUICK))
    for kind in ("labels", "predictions"):
        (folder / kind / "league" / "season").rename(folder / f"{kind} elsewhere")
        (folder / kind / "league" / "season").symlink_to(folder / f"{kind} elsewhere")
        (folder / kind / "league" / "again").symlink_to(folder / kind)
    linked, _ = asked(run, *spotting(folder, *QUICK))
    assert (linked["games"], linked["loose"]) == (plain["games"], plain["loose"])


def test_a_file_of_predictions_that_is_not_there_any_more_is_no_empty_one(run: Run, folder: Path) -> None:
    file = folder / "labels" / "league" / "season" / "game 001" / "Labels-v2.json"
    file.unlink()
    file.symlink_to(folder / "gone")
    code, out, err = run(*spotting(folder, *QUICK))
    assert (code, out) == (1, "")
    assert str(file) in err


def test_another_run_is_not_blamed_for_games_that_were_not_asked_for(run: Run, folder: Path) -> None:
    _, err = asked(run, *spotting(folder, "--games", "*001", "--against", folder / "predictions", "--draws", 5))
    assert "without labels" not in err


@pytest.mark.parametrize(
    "options",
    [
        ("--games", ""),
        ("--games", " , "),
        ("--seed", "-1"),
        ("--within", "1e300"),
        ("--within", "nan"),
        ("--draws", "-1"),
        ("--coverage", "nowhere"),
        ("--against", "nowhere"),
    ],
)
def test_a_wish_that_cannot_be_is_wrong_usage(run: Run, folder: Path, options: tuple[str, str]) -> None:
    code, out, err = run(*spotting(folder, *options))
    assert (code, out) == (2, "")
    told = {"--games": "names no game", "--coverage": "nowhere", "--against": "nowhere"}
    assert told.get(options[0], options[0]) in err


@pytest.mark.parametrize("command", ["thresholds", "calibration"])
def test_what_cannot_be_written_is_told_before_any_work(run: Run, folder: Path, command: str) -> None:
    sets = ("--fit", "*00[0-2]", "--test", "*00[3-5]", "--out")
    for out, why in ((folder / "no" / "f.json", "there is no folder"), (folder, "that is a folder")):
        code, _, err = run(command, *spotting(folder)[1:], *sets, out)
        assert code == 2
        assert why in err


@pytest.mark.parametrize("pair", [[5, 1], [-5, 1], [0, 10**20]])
def test_a_coverage_that_cannot_be_is_refused_by_name(run: Run, folder: Path, pair: list[int]) -> None:
    row = {"stream": "s", "service": "detect.m", "done": [pair], "failed": [], "skipped": [], "missing": []}
    file = folder / "predictions" / "league" / "season" / "game 001" / "1_720p" / "coverage.json"
    file.parent.mkdir()
    file.write_text(json.dumps(row))
    code, _, err = run(*spotting(folder, *QUICK))
    assert code == 1
    assert str(file) in err


@pytest.mark.parametrize("kind", ["labels", "predictions"])
def test_an_empty_folder_is_an_error_that_names_it(run: Run, folder: Path, kind: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    other = "predictions" if kind == "labels" else "labels"
    code, out, err = run("spotting", f"--{kind}", tmp_path / "empty", f"--{other}", folder / other)
    assert (code, out) == (2, "")
    assert f"{tmp_path / 'empty'}: no " in err


def test_a_broken_row_is_an_error_that_names_file_and_row(run: Run, folder: Path) -> None:
    file = folder / "predictions" / "league" / "season" / "game 001" / "results_spotting.json"
    document = json.loads(file.read_text())
    del document["predictions"][4]["confidence"]
    file.write_text(json.dumps(document))
    code, out, err = run(*spotting(folder, *QUICK))
    assert (code, out) == (1, "")
    assert f"{file} row 5: confidence None" in err


def test_what_was_looked_at_is_scored_apart_and_printed_beside_it(run: Run, folder: Path) -> None:
    assert asked(run, *spotting(folder, *QUICK))[0]["coverage"] is None
    half_done = {
        "stream": "s",
        "service": "detect",
        "done": [[0, 1_000_000]],
        "failed": [],
        "skipped": [],
        "missing": [[1_000_000, 2_820_000]],
    }
    for game in GAMES:
        for half in (1, 2):
            path = folder / "predictions" / game / f"{half}_720p" / "coverage.json"
            path.parent.mkdir()
            path.write_text(json.dumps(half_done | {"stream": f"{game}/{half}_720p"}))
    found, _ = asked(run, *spotting(folder, *QUICK))
    covered = found["coverage"]
    assert covered["intervals"] is None
    drawn, _ = asked(run, *spotting(folder, "--draws", 20))
    low, high = drawn["coverage"]["intervals"]["loose"]["mAP"]
    assert low <= covered["loose"]["mAP"] <= high
    assert covered["share"] == pytest.approx(1000 / 2820)
    assert covered["labels_outside"] > 0
    assert covered["loose"]["mAP"] != found["loose"]["mAP"]
    code, out, _ = run(*spotting(folder, *QUICK))
    assert code == 0
    assert "looked at 35.5 % of 564 minutes" in out


def test_another_run_is_compared_with_an_interval_and_a_p_value(run: Run, folder: Path) -> None:
    worse = {game: (truth, said[::3]) for game, (truth, said) in GAMES.items()}
    official.write(folder / "worse", worse)
    found, _ = asked(run, *spotting(folder, "--against", folder / "worse" / "predictions", "--draws", 40))
    assert found["comparison"]["loose"]["difference"] > 0
    assert found["comparison"]["loose"]["p"] < 0.1
    same, _ = asked(run, *spotting(folder, "--against", folder / "predictions", "--draws", 10))
    assert same["comparison"]["loose"] == {"difference": 0.0, "interval": [0.0, 0.0], "p": 1.0}


def test_spans_are_scored_where_both_sides_have_them(run: Run, tmp_path: Path) -> None:
    folder = _spans(tmp_path, {"one game": 5000, "two": 2500, "three": 20_000})
    spans = asked(run, *spotting(folder, "--draws", 50))[0]["spans"]
    assert spans["mean_iou"] == pytest.approx((1 / 3 + 3 / 5) / 3)
    assert spans["f1_at_0.5"] == pytest.approx(1 / 3)
    for name in ("mean_iou", "f1_at_0.3", "f1_at_0.5", "f1_at_0.7"):
        low, high = spans["intervals"][name]
        assert low <= spans[name] <= high
    assert spans["intervals"]["mean_iou"][0] < spans["intervals"]["mean_iou"][1]


def _spans(folder: Path, late_ms: dict[str, int]) -> Path:
    """A stretch of ten seconds in each game, and one as long that was predicted so much later."""
    games = {}
    for game, late in late_ms.items():
        truth = Spot(half=1, time_ms=15_000, label="Goal", start_ms=10_000, end_ms=20_000)
        said = Spot(half=1, time_ms=15_000, label="Goal", confidence=0.5, start_ms=10_000 + late, end_ms=20_000 + late)
        games[game] = ([truth], [said])
    official.write(folder, games)
    return folder


# thresholds, calibration --------------------------------------------------------------------------------------------


def test_thresholds_are_chosen_on_some_games_and_told_on_others(run: Run, folder: Path) -> None:
    sets = ("--fit", "*00[0-2]", "--test", "*00[3-5]")
    found, _ = asked(run, "thresholds", *spotting(folder)[1:], *sets, "--out", folder / "t.json")
    assert json.loads((folder / "t.json").read_text()) == found["thresholds"]
    assert set(found["thresholds"]) <= set(LABELS)
    assert found["fit"]["after"]["per_minute"] < found["fit"]["before"]["per_minute"]
    assert all(
        found["fit"]["after"]["per_class_f1"][label] >= found["fit"]["before"]["per_class_f1"][label]
        for label in LABELS
    )
    assert found["test"]["games"] == 3
    after = found["test"]["after"]
    for name in ("precision", "recall", "f1", "loose_mAP"):
        low, high = after["intervals"][name]
        assert low <= after[name] <= high


def test_games_to_fit_on_are_never_those_to_report_on(run: Run, folder: Path) -> None:
    for command in ("thresholds", "calibration"):
        code, _, err = run(command, *spotting(folder)[1:], "--fit", "*", "--test", "*005")
        assert code == 2
        assert "1 games are in --fit and in --test, first league/season/game 005" in err


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_calibration_is_saved_and_judged_on_unseen_games(run: Run, folder: Path, method: str) -> None:
    sets = ("--fit", "*00[0-2]", "--test", "*00[3-5]", "--method", method)
    found, _ = asked(run, "calibration", *spotting(folder)[1:], *sets, "--out", folder / "c.json")
    assert json.loads((folder / "c.json").read_text()) == found["fit"]
    low, high = found["test"]["before"]["interval"]
    assert low <= found["test"]["before"]["ece"] <= high
    assert found["test"]["after"]["ece"] < found["test"]["before"]["ece"]


def test_agreement_of_runs_is_a_confidence(run: Run, folder: Path) -> None:
    arguments = (*spotting(folder)[1:], "--predictions", folder / "predictions", "--confidence", "agreement")
    found, _ = asked(run, "calibration", *arguments)
    assert found["all"]["count"][7] == sum(found["all"]["count"])  # two of two: 3/4 for every one
    assert run("calibration", *spotting(folder)[1:], "--confidence", "agreement")[0] == 2


def test_labels_with_enough_predictions_are_calibrated_by_themselves_as_the_ensemble_takes_it(
    run: Run, folder: Path
) -> None:
    often = official.made_up(12, games=4, predictions=900, labels=200)
    official.write(folder / "often", often)
    arguments = (*spotting(folder / "often")[1:], "--fit", "*00[01]", "--test", "*00[23]", "--out", folder / "c.json")
    found, _ = asked(run, "calibration", *arguments, "--per-label", "--method", "platt")
    line = Calibration.model_validate_json((folder / "c.json").read_bytes())
    assert line.of == "own"
    assert set(line.per_label) == set(found["fit"]["per_label"]) <= set(LABELS)
    assert line.per_label
    assert found["test"]["after"]["ece"] < found["test"]["before"]["ece"]


def test_agreement_within_a_run_counts_models_and_windows(run: Run, tmp_path: Path) -> None:
    official.write(tmp_path, {"g": ([Spot(half=1, time_ms=5000, label="Goal")], [])})

    def life(n: int, at_ms: int, votes: str, **more: object) -> dict[str, Any]:
        said = [{"model": v[0], "index": int(v[1:])} for v in votes.split()]
        event = {"id": f"g/1_x/e{n}", "revision": 1, "state": "close", "label": "goal", "start_ms": at_ms}
        return event | {"end_ms": at_ms, "time_ms": at_ms, "votes": said, "looked": ["a", "b"], "index": n} | more

    events = tmp_path / "out" / "g" / "1_x" / "events.json"
    events.parent.mkdir(parents=True)
    rows = [
        life(0, 5000, "a1 b1"),
        life(1, 60_000, "a9"),
        life(1, 90_000, "b9", revision=0),
        life(2, 0, "a1", label="?"),
    ]
    events.write_text(json.dumps(rows))
    labels = ("--labels", tmp_path / "labels", "--confidence", "agreement", "--predictions")
    found, err = asked(run, "calibration", *labels, tmp_path / "out")
    assert [(said, came) for n, said, came in zip(*(found["all"][k] for k in TABLE), strict=True) if n] == [
        (0.5, 0.0),
        (0.75, 1.0),
    ]
    assert "1 × half without events, scored as if nothing had been found: g 2" in err
    assert "row 4 ('?')" in err
    events.write_text(json.dumps([life(0, 0, "a1") | {"votes": 3}]))
    code, _, err = run("calibration", *labels, tmp_path / "out")
    assert code == 1
    assert f"{events} row 1: " in err
    assert run("calibration", *labels, tmp_path / "labels")[0] == 2


TABLE = ("count", "confidence", "accuracy")


# agreement, windows, overdetection ----------------------------------------------------------------------------------


def test_two_runs_agree_on_what_both_saw(run: Run, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(
        json.dumps(
            [{"time": 10, "raw": "{'label': 'Goal', 'confidence': 0.9}"}, {"time": 50, "raw": '{"label": "Foul"}'}]
        )
    )
    two.write_text(json.dumps([{"time": 12, "raw": 'Sure! {"label": "Goal"}'}, {"time": 90, "raw": "mumble"}]))
    found, err = asked(run, "agreement", one, two)
    assert (found["all"], found["some"], found["one"]) == (1, 0, 1)
    assert found["rows"][1]["found_by"] == [str(one), str(two)] or found["rows"][0]["found_by"] == [str(one), str(two)]
    assert "1 × text that cannot be read as events" in err
    assert "two.json row 2" in err


def test_kappa_has_an_interval_over_games_and_one_game_has_none(run: Run, folder: Path) -> None:
    """Halves of one game are no two draws: what happens in them hangs together."""
    official.write(folder / "fewer", {game: (truth, said[::2]) for game, (truth, said) in GAMES.items()})
    runs = [folder / "predictions", folder / "fewer" / "predictions"]
    found, _ = asked(run, "agreement", *runs, "--draws", 50)
    assert (found["streams"], found["games"]) == (12, 6)
    for of in (found, *found["per_label"].values()):
        low, high = of["kappa_interval"]
        assert low <= of["kappa"] <= high
    assert asked(run, "agreement", *runs, "--draws", 50)[0] == found
    game = "league/season/game 000"
    one, _ = asked(run, "agreement", *(folder_of / game for folder_of in runs))
    assert (one["streams"], one["games"], one["kappa_interval"]) == (2, 1, None)


def test_who_says_nothing_of_a_stream_is_named(run: Run, folder: Path) -> None:
    official.write(folder / "less", {game: spots for game, spots in GAMES.items() if not game.endswith("3")})
    _, err = asked(run, "agreement", folder / "predictions", folder / "less" / "predictions", *QUICK)
    assert f"2 × stream of which one says nothing, taken as looked at and nothing seen: {folder}/less" in err
    assert "game 003/1" in err


def test_one_game_has_scores_but_no_intervals_and_says_why(run: Run, folder: Path) -> None:
    only = ("--games", "*003")
    found, _ = asked(run, *spotting(folder, *only, "--against", folder / "predictions"))
    assert found["intervals"] is None
    assert "intervals" not in found["found"]
    assert found["comparison"]["loose"]["interval"] is None
    code, out, _ = run(*spotting(folder, *only))
    assert code == 0
    assert "no intervals: 1 games" in out
    assert "[" not in out


def test_models_within_one_file_are_voices_of_their_own(run: Run, tmp_path: Path) -> None:
    file = _detections(tmp_path / "detections.jsonl")
    found, _ = asked(run, "agreement", file, "--by", "model")
    assert found["runs"] == ["glm", "qwen"]
    assert found["per_label"]["Goal"]["all"] == 1
    assert run("agreement", file)[0] == 2


def _detections(file: Path) -> Path:
    def line(model: str, index: int, **more: Any) -> str:
        window = {"id": f"{model}{index}", "service": f"detect.{model}", "stream": "game/1_720p", "index": index}
        return json.dumps(
            window
            | {"start_ms": 4000 * index, "end_ms": 4000 * index + 4000, "outcome": "done"}
            | ({"model": model, "how": "whole", "events": []} if more.get("outcome") is None else {})
            | more
        )

    goal = [{"label": "Goal", "confidence": 0.9}]
    lines = [
        line("qwen", 0),
        line("qwen", 1, events=goal),
        line("qwen", 2, outcome="failed", reason="unreadable"),
        line("glm", 0),
        line("glm", 1, events=goal, how="list"),
        line("glm", 2),
        line("glm", 3, outcome="skipped", reason="late", until_index=9),
        line("glm", 9, count=9, events=None),
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_windows_said_to_be_empty_are_held_against_the_labels(run: Run, tmp_path: Path) -> None:
    official.write(
        tmp_path, {"game": ([Spot(half=1, time_ms=5000, label="Goal"), Spot(half=1, time_ms=11_000, label="Foul")], [])}
    )
    file = _detections(tmp_path / "detections.jsonl")
    found, err = asked(run, "windows", "--labels", tmp_path / "labels", "--detections", file)
    assert found["models"]["qwen"]["read"] == {"whole": 2, "failed: unreadable": 1}
    assert (found["models"]["qwen"]["precision"], found["models"]["qwen"]["recall"]) == (1.0, 1.0)
    assert found["models"]["glm"]["windows"] == 3
    assert (found["models"]["glm"]["precision"], found["models"]["glm"]["recall"]) == (0.5, 1.0)
    assert (found["models"]["glm"]["in_gaps"], found["models"]["glm"]["intervals"]) == (6, None)
    assert "6 × windows in gaps, not looked at and not scored" in err
    assert "2 × half without a window, in no number: glm: game 2; qwen: game 2" in err
    code, out, _ = run("windows", "--labels", tmp_path / "labels", "--detections", file)
    assert code == 0
    assert "glm: no intervals: 1 games" in out


def test_a_window_without_an_answer_counts_against_the_model_that_was_asked(run: Run, tmp_path: Path) -> None:
    """It names no model, as nobody answered; its service does."""
    official.write(tmp_path, {"game": ([Spot(half=1, time_ms=5000, label="Goal")], [])})
    file = _detections(tmp_path / "detections.jsonl")
    found, _ = asked(run, "windows", "--labels", tmp_path / "labels", "--detections", file)
    assert found["models"].keys() == {"glm", "qwen"}
    assert found["models"]["qwen"]["windows"] == 3
    assert (found["models"]["qwen"]["precision"], found["models"]["qwen"]["recall"]) == (1.0, 0.5)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "glm" in line or '"failed"' in line))
    found, _ = asked(run, "windows", "--labels", tmp_path / "labels", "--detections", file)
    assert found["models"]["detect.qwen"]["recall"] == 0.0


def test_the_null_class_has_intervals_over_games(run: Run, tmp_path: Path) -> None:
    spot = Spot(half=1, time_ms=5000, label="Goal")
    official.write(tmp_path, {f"game {n}": ([spot], list[Spot]()) for n in range(5)})
    lines = _detections(tmp_path / "one.jsonl").read_text()
    (tmp_path / "all").mkdir()
    file = tmp_path / "all" / "detections.jsonl"
    said = [lines if n % 2 else lines.replace('"events": []', '"events": [{"label": "Foul"}]', 1) for n in range(5)]
    file.write_text("".join(of.replace("game/1_720p", f"game {n}/1_720p") for n, of in enumerate(said)))
    found, _ = asked(run, "windows", "--labels", tmp_path / "labels", "--detections", file, "--draws", 50)
    for name in ("precision", "recall", "f1"):
        low, high = found["models"]["qwen"]["intervals"][name]
        assert low <= found["models"]["qwen"][name] <= high
        assert low < high
    again, _ = asked(run, "windows", "--labels", tmp_path / "labels", "--detections", file, "--draws", 50)
    assert again == found


def test_too_many_events_are_told_with_the_rows_that_show_it(run: Run, tmp_path: Path) -> None:
    raw = '{"label": "Foul", "team": "home", "confidence": 0.9, "details": "A player falls"}'
    file, still = tmp_path / "said.json", tmp_path / "still.json"
    file.write_text(json.dumps([{"time": 3 * n, "raw": raw} for n in range(1, 101)]))
    still.write_text(json.dumps({"": [[0, 10_000]]}))
    found, _ = asked(run, "overdetection", "--predictions", file, "--still", still)
    assert found["times_prior"] == pytest.approx(10)
    assert found["repeated"] == [
        {"text": "A player falls", "count": 100, "places": [f"{file} row {n}" for n in range(1, 11)]}
    ]
    assert [row["place"] for row in found["still"]["rows"]] == [f"{file} row {n}" for n in (1, 2, 3)]
    assert found["confidences"]["distinct"] == 1
    assert found["teams"]["values"][0]["value"] == "home"


@pytest.mark.parametrize(("pair", "code"), [([5, 1], 1), ([-1, 5], 1), ([0, 5], 0)])
def test_still_stretches_that_cannot_be_are_refused(run: Run, tmp_path: Path, pair: list[int], code: int) -> None:
    file, still = tmp_path / "said.json", tmp_path / "still.json"
    file.write_text('[{"time": 0, "raw": "{\'label\': \'Goal\'}"}]')
    still.write_text(json.dumps({"match": [pair]}))
    found, _, err = run("overdetection", "--predictions", file, "--still", still)
    assert found == code
    assert (str(still) in err) is (code == 1)
    assert run("overdetection", "--predictions", file, "--minutes", "0")[0] == 2


def test_a_window_that_cannot_be_is_refused_with_its_row(run: Run, tmp_path: Path) -> None:
    official.write(tmp_path, {"game": ([Spot(half=1, time_ms=5000, label="Goal")], [])})
    file = _detections(tmp_path / "detections.jsonl")
    for wrong in ('"end_ms": 99999999999999999999', '"end_ms": -1'):
        file.write_text(file.read_text().replace('"end_ms": 4000', wrong, 1))
        code, _, err = run("windows", "--labels", tmp_path / "labels", "--detections", file)
        assert code == 1
        assert f"{file} row 1: a window from 0 to " in err
        _detections(file)


def test_the_truth_is_the_reference_where_it_is_given(run: Run, folder: Path) -> None:
    found, _ = asked(run, "overdetection", "--predictions", folder / "predictions", "--labels", folder / "labels")
    assert found["times_prior"] == pytest.approx(80 / 60, rel=0.2)
    assert 0 < found["labels"]["distance"] < 1
    for name in ("per_minute", "times_prior"):
        low, high = found["intervals"][name]
        assert low <= found[name] <= high
    told, _ = asked(run, "overdetection", "--predictions", folder / "predictions", "--minutes", 500)
    assert told["intervals"] is None


# dashcam ------------------------------------------------------------------------------------------------------------


def test_clips_without_an_answer_are_wrong_and_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_bytes(submission.write([CLIP, OTHER]))
    (tmp_path / "said.csv").write_bytes(submission.write([CLIP, replace(CLIP, video="9")]))
    (tmp_path / "better.csv").write_bytes(submission.write([CLIP, OTHER]))
    files = ("--labels", tmp_path / "truth.csv", "--predictions", tmp_path / "said.csv")
    found, err = asked(run, "dashcam", *files, "--against", tmp_path / "better.csv")
    assert (found["clips"], found["answered"]) == (2, 1)
    assert found["headline"]["label_accuracy"]["value"] == 0.5
    assert found["comparison"]["label_accuracy"]["difference"] == -0.5
    assert "1 × clip without an answer, scored as wrong" in err
    assert "1 × answer for a clip without truth" in err


# pictures, help -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures_are_drawn_where_they_are_wanted(run: Run, folder: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    clips = folder / "clips.csv"
    clips.write_bytes(submission.write([CLIP, OTHER]))
    sets = ("--fit", "*00[0-2]", "--test", "*00[3-5]")
    said = folder / "predictions"
    commands: list[tuple[object, ...]] = [
        spotting(folder, *QUICK),
        ("thresholds", *spotting(folder)[1:], *sets),
        ("calibration", *spotting(folder)[1:], *sets),
        ("agreement", said / "league/season/game 000", said / "league/season/game 001"),
        ("overdetection", "--predictions", said),
        ("dashcam", "--labels", clips, "--predictions", clips),
    ]
    for number, command in enumerate(commands if suffix == "png" else commands[:1]):
        picture = folder / f"{number}.{suffix}"
        code, _, err = run(*command, "--plot", picture)
        assert code == 0, err
        assert picture.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


def test_a_picture_of_no_known_kind_is_refused_before_any_work(run: Run, tmp_path: Path) -> None:
    code, _, err = run(
        "spotting", "--labels", tmp_path / "no", "--predictions", tmp_path / "no", "--plot", tmp_path / "a.gif"
    )
    assert code == 2
    assert "a picture is a .png or an .svg file" in err


def test_people_get_tables(run: Run, folder: Path) -> None:
    code, out, _ = run(*spotting(folder, *QUICK))
    assert code == 0
    assert out.splitlines()[0].split() == ["metric", "mAP", "95", "%", "visible", "unshown"]
    assert "looked at: nobody says" in out
