"""`streamproc export`: what has landed, in the formats of others, in the order of input; what is missing is said."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamproc.cli.frame import Code
from streamproc.formats import soccernet, submission
from streamproc.formats.problems import Problems
from streamproc.formats.soccernet import Spot
from streamproc.pipeline.exporting_formats import COLUMNS
from tests.e2e.films import film
from tests.e2e.test_import import CORNER, GOAL, MATCH, here, import_, predictions, said, spotting, streamproc
from tests.unit.test_ensemble_cli import CLIP, FIXTURES, HOLE, numbered, real, written

__all__ = ["here"]

Export = Callable[..., tuple[int, str]]
SPOTS = (("1", 10_500, "Goal", 0.9), ("1", 60_000, "Foul", 0.25), ("2", 71_000, "Corner", 0.5))


@pytest.fixture
def export(capfd: pytest.CaptureFixture[str]) -> Export:
    """The code and stdout of the command; what it said beside it is in `export.err`."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        capfd.readouterr()
        code = streamproc("export", *arguments)
        out, call.err = capfd.readouterr()  # type: ignore[attr-defined]  # for the tests that look at it
        return code, out

    return call


def err(export: Export) -> str:
    return str(export.err)  # type: ignore[attr-defined]  # see above


# predictions --------------------------------------------------------------------------------------------------------


def test_predictions_are_a_row_an_event_with_the_text_of_its_first_window(export: Export) -> None:
    assert import_(predictions("p.json", MATCH), "--as", "m", "--task", "soccer") == Code.DONE
    code, out = export("m", "--format", "predictions")
    assert (code, err(export)) == (Code.DONE, "")
    assert json.loads(out) == [
        {"time": 4.0, "raw": GOAL},
        {"time": 30.0, "raw": CORNER},
        {"time": 61.5, "raw": CORNER},
    ]
    assert import_(predictions("back.json", {r["time"]: r["raw"] for r in json.loads(out)}), "--as", "n") == Code.DONE
    assert export("n", "--format", "predictions")[1] == out


def test_of_one_model_only_what_it_saw_at_its_own_time(export: Export) -> None:
    a, b = predictions("a.json", MATCH), predictions("b.json", {6: GOAL, 90: CORNER})
    for model, file in (("a", a), ("b", b)):
        assert import_(file, "--as", "m", "--task", "soccer", "--model", model) == Code.DONE
    _, out = export("m", "--format", "predictions", "--model", "b")
    assert [row["time"] for row in json.loads(out)] == [6.0, 90.0]
    _, out = export("m", "--format", "predictions")
    assert [row["time"] for row in json.loads(out)] == [4.0, 30.0, 61.5, 90.0]
    assert export("m", "--format", "csv", "--model", "c")[0] == Code.USAGE


def test_several_streams_are_files_of_a_folder(export: Export) -> None:
    file = predictions("p.json", MATCH)
    for name in ("l/a", "l/b"):
        assert import_(file, "--as", name, "--task", "soccer") == Code.DONE
    assert export("--all", "--format", "predictions")[0] == Code.USAGE
    assert "name a folder" in err(export)
    assert export("--all", "--format", "predictions", "--out", "one.json")[0] == Code.USAGE
    assert export("--all", "--format", "predictions", "--out", "many")[0] == Code.DONE
    assert said("many/l/a.json") == said("many/l/b.json") != []


# games --------------------------------------------------------------------------------------------------------------


def test_a_game_is_a_file_of_its_halves_and_scores_as_it_came(
    export: Export, capfd: pytest.CaptureFixture[str]
) -> None:
    assert import_(spotting("s.json", *SPOTS), "--as", "l/g") == Code.DONE
    assert export("--all", "--format", "spotting", "--out", "ours")[0] == Code.DONE
    problems = Problems()
    back = soccernet.read_predictions(
        Path("ours/l/g/results_spotting.json").read_bytes(), file="back", problems=problems
    )
    assert [(str(s.half), s.time_ms, s.label, s.confidence) for s in back] == list(SPOTS)
    assert not problems
    Path("labels/l/g").mkdir(parents=True)
    truth = [Spot(half=int(half), time_ms=ms, label=label) for half, ms, label, _ in SPOTS]
    Path("labels/l/g/Labels-v2.json").write_bytes(soccernet.write_labels("l/g", truth))
    capfd.readouterr()
    assert streamproc("score", "spotting", "--labels", "labels", "--predictions", "ours", "--json") == Code.DONE
    score = json.loads(capfd.readouterr().out)
    assert score["found"]["f1"] == 1
    assert score["coverage"]["share"] == 1


def test_a_game_to_stdout_is_the_same_bytes_as_in_its_file(export: Export) -> None:
    assert import_(spotting("s.json", *SPOTS), "--as", "g") == Code.DONE
    _, out = export("--all", "--format", "spotting")
    assert export("--all", "--format", "spotting", "--out", "g.json")[0] == Code.DONE
    assert Path("g.json").read_text() == out


def test_what_is_no_half_of_a_game_is_refused_by_name_and_left_out_of_all(export: Export) -> None:
    assert import_(predictions("p.json", MATCH), "--as", "m", "--task", "soccer") == Code.DONE
    assert export("m", "--format", "spotting")[0] == Code.USAGE
    assert export("--all", "--format", "spotting")[0] == Code.USAGE
    assert import_(spotting("s.json", *SPOTS), "--as", "g") == Code.DONE
    assert export("--all", "--format", "spotting")[0] == Code.DONE
    assert "left out, as no half of a game, as GAME/1_…: m" in err(export)
    assert export("g/2_half", "--format", "spotting")[0] == Code.DONE
    assert "only half 2 is there" in err(export)


def test_events_below_their_threshold_are_no_predictions_and_say_so_in_the_table(export: Export) -> None:
    thresholds = ("--set", 'ensemble.thresholds={"Foul": 0.5}')
    assert import_(spotting("s.json", *SPOTS), "--as", "g", *thresholds) == Code.DONE
    _, out = export("--all", "--format", "spotting")
    assert [p["label"] for p in json.loads(out)["predictions"]] == ["Goal", "Corner"]
    _, out = export("--all", "--format", "csv")
    assert {r["label"]: (r["outcome"], r["reason"]) for r in rows(out)} == {
        "Goal": ("done", ""),
        "Foul": ("skipped", "below-threshold"),
        "Corner": ("done", ""),
    }


# clips --------------------------------------------------------------------------------------------------------------


def test_a_submission_comes_back_byte_for_byte_in_its_own_order(export: Export) -> None:
    clips = [replace(c, video=v) for c, v in zip(numbered(CLIP, HOLE, CLIP), ("b", "10", "9"), strict=True)]
    file = written("s.csv", *clips)
    assert import_(file, "--as", "sub") == Code.DONE
    assert export("--all", "--format", "2coool", "--out", "back.csv") == (Code.DONE, "")
    assert Path("back.csv").read_bytes() == file.read_bytes()
    assert export("sub/9", "sub/b", "--format", "2coool", "--out", "two.csv")[0] == Code.DONE
    back = submission.read(Path("two.csv").read_bytes(), file="two.csv")
    assert [c.video for c in back] == ["9", "b"]


def test_of_one_describer_its_own_row_and_of_all_their_verdict(export: Export) -> None:
    one, two = numbered(CLIP), numbered(replace(CLIP, start_frame=9, reason="A dog runs."))
    for name, rows_ in (("one", one), ("two", two)):
        assert import_(written(f"{name}.csv", *rows_), "--as", "sub", "--model", name) == Code.DONE
    _, out = export("--all", "--format", "2coool", "--model", "two")
    assert submission.read(out.encode(), file="out") == two
    _, out = export("--all", "--format", "2coool")
    (verdict,) = submission.read(out.encode(), file="out")
    assert (verdict.label, verdict.start_frame) == (CLIP.label, 9)  # of two as frequent the smallest


@real
def test_a_real_submission_comes_back_cell_for_cell(export: Export) -> None:
    (file,) = FIXTURES.glob("exp005*.csv")
    assert import_(file, "--as", "sub") == Code.DONE
    assert export("--all", "--format", "2coool", "--out", "back.csv") == (Code.DONE, "")
    ours, theirs = Path("back.csv").read_bytes(), file.read_bytes()
    assert submission.read(ours, file="ours") == submission.read(theirs, file="theirs")
    assert ours == theirs.replace(b"\r\n", b"\n")


def test_clips_of_one_name_in_two_folders_are_called_by_all_of_it(export: Export) -> None:
    for name in ("day", "night"):
        assert import_(written("s.csv", *numbered(CLIP)), "--as", name) == Code.DONE
    _, out = export("--all", "--format", "2coool")
    assert [c.video for c in submission.read(out.encode(), file="out")] == ["day/0", "night/0"]


def test_clips_that_were_run_are_rows_in_the_order_of_input_and_holes_where_nothing_landed(export: Export) -> None:
    for name in ("10", "9", "b"):
        film(Path(f"clips/{name}.mp4"), 2, ("red", 0.5, 2.0))
    assert streamproc("run", "clips", "--task", "dashcam", "--only", "caption") == Code.DONE
    code, out = export("--all", "--format", "2coool")
    assert code == Code.INCOMPLETE
    assert "clip 9: nothing is known of it" in err(export)
    assert "coverage is incomplete in 3 of 3 streams" in err(export)
    assert [c.video for c in submission.read(out.encode(), file="out")] == ["9", "10", "b"]
    assert streamproc("run", "clips", "--task", "dashcam") == Code.DONE
    code, out = export("--all", "--format", "2coool")
    assert (code, err(export)) == (Code.DONE, "")
    clips = submission.read(out.encode(), file="out")
    assert [c.video for c in clips] == ["9", "10", "b"]
    assert all("no AI" in c.reason for c in clips)
    assert export("--all", "--format", "predictions")[0] == Code.USAGE
    assert "is no stream of events" in err(export)
    _, table = export("--all", "--format", "csv")
    assert [(r["stream"], r["frame"]) for r in rows(table)] == [(c.video, str(c.start_frame)) for c in clips]


# json, tables, and what is wrong ------------------------------------------------------------------------------------


def rows(text: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(text.splitlines()))


def test_json_is_a_document_a_stream_with_all_that_the_files_of_a_run_have(export: Export) -> None:
    film(Path("z.mp4"), 8, ("red", 2.0, 6.0))
    assert streamproc("run", "z.mp4", "--set", "labels=red box", "--out", "out") == Code.DONE
    assert import_(predictions("p.json", MATCH), "--as", "m", "--task", "soccer") == Code.DONE
    code, out = export("--all")
    first, second = map(json.loads, out.splitlines())
    assert (code, first["stream"], second["stream"]) == (Code.DONE, "z", "m")
    assert first["complete"]
    for name in ("events", "verdicts", "coverage"):
        assert first[name] == said(f"out/z/{name}.json")
    captions = Path("out/z/captions.jsonl").read_text().splitlines()
    assert first["captions"] == list(map(json.loads, captions))


def test_a_table_has_a_row_an_event_with_its_verdict(export: Export) -> None:
    for model, file in (("a", predictions("a.json", MATCH)), ("b", predictions("b.json", {4: GOAL}))):
        assert import_(file, "--as", "m", "--task", "soccer", "--model", model) == Code.DONE
    _, out = export("m", "--format", "csv")
    first, *others = rows(out)
    assert (first["label"], first["team"], first["start_s"], first["found_by"]) == ("Goal", "home", "4.0", "a b")
    assert json.loads(first["fields"])["found"] == "by all"
    assert [(r["label"], r["found_by"], r["outcome"]) for r in others] == [("Corner", "a", "done")] * 2


def test_what_is_incomplete_is_exported_as_far_as_it_landed_and_said(export: Export) -> None:
    assert (
        import_(predictions("p.json", MATCH | {70: "mumble ###"}), "--as", "m", "--task", "soccer") == Code.INCOMPLETE
    )
    code, out = export("m", "--format", "predictions")
    assert code == Code.INCOMPLETE
    assert len(json.loads(out)) == 3
    assert "coverage is incomplete in 1 of 1 streams: m" in err(export)


def test_every_column_of_the_table_is_explained_in_the_help(export: Export) -> None:
    _, told = export("--help")
    for column in COLUMNS:
        assert re.search(rf"\b{column}\b", told.partition("Columns of csv:")[2].partition("Arguments:")[0]), column


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "or say --all"),
        (["m", "--all"], "or say --all"),
        (["mm"], "no stream 'mm'"),
        (["m", "--model", "a"], "a json document has all models"),
        (["m", "--format", "2coool"], "stream 'm' is no described clip"),
        (["m", "--format", "csv", "--out", "folder"], "cannot be written"),
    ],
)
def test_a_wish_that_cannot_be_is_told(arguments: list[str], told: str, export: Export) -> None:
    Path("folder").mkdir()
    assert import_(predictions("p.json", MATCH), "--as", "m", "--task", "soccer") == Code.DONE
    assert export(*arguments)[0] == Code.USAGE
    assert told in err(export)


def test_without_a_bus_there_is_nothing_to_export(export: Export) -> None:
    assert export("--all")[0] == Code.UNREACHABLE
