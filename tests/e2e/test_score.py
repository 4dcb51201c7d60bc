"""From films and SoccerNet's labels to a score, and back: thresholds and calibrations that a run takes as they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.formats.soccernet import LABELS_FILE, Spot, write_labels
from streamproc.messages import Life
from streamproc.stages.ensemble.votes import Calibration, agreed
from tests.e2e.films import Box, film
from tests.score import official

CARDS = ("--set", "labels=Red card, Yellow card", "--only", "decode,detect,dedup,ensemble")
GAMES: dict[str, tuple[tuple[Box, ...], list[tuple[str, int]]]] = {
    "league/a": ((("red", 4, 9), ("small yellow", 13, 16)), [("Red card", 4)]),
    "league/b": ((("yellow", 3, 7), ("small red", 13, 16)), [("Yellow card", 3)]),
    "league/c": ((("red", 4, 9), ("small yellow", 14, 17), ("yellow", 23, 27)), [("Red card", 4), ("Yellow card", 23)]),
}
"""Game → what its films show, and what is true. A small box is shown as if it were a card; it is none."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")  # also where a broker is named for other tests
    for game, (boxes, true) in GAMES.items():
        for half in (1, 2):
            film(Path("matches", game, f"{half}_720p.mp4"), 30, *boxes)
        spots = [Spot(half=half, time_ms=1000 * at, label=label) for half in (1, 2) for label, at in true]
        labels = Path("labels", game, LABELS_FILE)
        labels.parent.mkdir(parents=True)
        labels.write_bytes(write_labels(game, spots))
    return tmp_path


def streamproc(*arguments: str | Path) -> int:
    return exit_code(build(), list(map(str, arguments)))


def scored(capfd: pytest.CaptureFixture[str], predictions: str, *more: str) -> dict[str, Any]:
    capfd.readouterr()
    asked = ("score", "spotting", "--labels", "labels", "--predictions", predictions, "--draws", "0", "--json", *more)
    assert streamproc(*asked) == Code.DONE
    document: dict[str, Any] = json.loads(capfd.readouterr().out)
    return document


def verdicts(folder: str) -> list[dict[str, Any]]:
    """In all streams; what is not believed stays in the topic."""
    return [row for path in sorted(Path(folder).rglob("verdicts.json")) for row in json.loads(path.read_bytes())]


def exported(folder: str, streams: str) -> None:
    named = [f"{game}/{half}_720p{streams}" for game in GAMES for half in (1, 2)]
    assert streamproc("export", *named, "--format", "spotting", "--out", folder) in (Code.DONE, Code.INCOMPLETE)


@pytest.mark.timeout(300)
def test_films_become_a_score_and_what_was_learnt_from_it_makes_the_next_run_better(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert streamproc("run", "matches", *CARDS, "--out", "out") == Code.DONE
    exported("first", "")
    before = scored(capfd, "first")
    assert (before["games"], before["labels"], before["predictions"]) == (3, 8, 14)
    assert before["found"]["recall"] == 1.0
    assert before["found"]["precision"] == pytest.approx(8 / 14)
    assert before["coverage"]["share"] == 1.0
    (here / "predictions").symlink_to("first")
    theirs = official.evaluate(here, metric="loose")
    assert before["loose"]["mAP"] == pytest.approx(theirs["a_mAP"], abs=1e-12)

    learn = ("--labels", "labels", "--fit", "league/a, league/b", "--test", "league/c", "--out")
    assert streamproc("score", "thresholds", "--predictions", "first", *learn, "thresholds.json") == Code.DONE
    believe = ("--set", "ensemble.thresholds=@thresholds.json")
    assert streamproc("run", "matches", *CARDS, *believe, "--again", "--out", "second") == Code.DONE
    # every small box has fallen, those of the third game too, on which nothing was chosen
    assert (len(verdicts("out")), len(verdicts("second"))) == (14, 8)
    exported("better", "@2")
    after = scored(capfd, "better", "--games", "league/c")
    assert (after["found"]["precision"], after["found"]["recall"]) == (1.0, 1.0)


@pytest.mark.timeout(300)
def test_a_calibration_of_agreement_is_the_confidence_of_the_next_runs_verdicts(here: Path) -> None:
    assert streamproc("run", "matches", *CARDS, "--out", "out") == Code.DONE
    games = ("--labels", "labels", "--fit", "league/a, league/b", "--test", "league/c", "--predictions", "out")
    learn = (*games, "--confidence", "agreement", "--method", "platt", "--out", "calibration.json")
    assert streamproc("score", "calibration", *learn) == Code.DONE
    believe = ("--set", "ensemble.calibration=@calibration.json")
    assert streamproc("run", "matches", *CARDS, *believe, "--again", "--out", "again") == Code.DONE
    plain, mended = verdicts("out"), verdicts("again")
    assert [v["label"] for v in plain] == [v["label"] for v in mended]
    assert {v["confidence"] for v in plain} != {v["confidence"] for v in mended}
    line = Calibration.model_validate_json(Path("calibration.json").read_bytes())
    votes = {
        life.id: agreed({(v.model, v.index) for v in life.votes}, looked=len(life.looked))
        for path in Path("again").rglob("events.json")
        for life in msgspec.json.decode(path.read_bytes(), type=list[Life])
    }
    assert len(set(votes.values())) > 1
    assert sorted(v["confidence"] for v in mended) == pytest.approx(sorted(line(a) for a in votes.values()), abs=1e-6)
