"""The README's recipes run as they stand there, with small films and the observer in place of every model."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.formats import soccernet, submission
from streamproc.formats.soccernet import Spot
from tests.e2e.films import film
from tests.e2e.test_import import here, spotting
from tests.unit.test_ensemble_cli import CLIP, numbered, observing, written

__all__ = ["here"]

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
RECIPES = [
    [
        line.removeprefix("$ ").partition("  #")[0].strip()
        for line in re.sub(r" \\\n\s+", " ", block).splitlines()
        if line.startswith("$ ")
    ]
    for block in re.findall(
        r"```console\n(.*?)```", README.partition("\n## Recipes")[2].partition("\n## ")[0], re.DOTALL
    )
]
MODELS = sorted({name for recipe in RECIPES for line in recipe for name in re.findall(r"--model (?:\w+=)?(\S+)", line)})


@pytest.fixture
def endpoints(here: Path) -> Iterator[None]:
    """Every model that the recipes name is the observer."""
    with observing() as (url, _):
        (here / "streamproc.toml").write_text(
            "".join(f'[endpoints."{model}"]\ncard = "observer"\nurls = ["{url}"]\n' for model in MODELS)
        )
        yield


def cook(number: int) -> None:
    for line in RECIPES[number]:
        program, *arguments = shlex.split(line)
        assert program == "streamproc", line
        assert exit_code(build(), arguments) == Code.DONE, line


def said(path: str) -> Any:
    return json.loads(Path(path).read_bytes())


def asked(stream: str) -> set[str]:
    """Prompts by which a model of a run's results was asked."""
    windows = Path(f"results/{stream}/detections.jsonl").read_bytes().splitlines()
    return {found["prompt"] for found in map(json.loads, windows) if "prompt" in found}


def test_there_is_a_recipe_for_every_job_of_the_predecessors() -> None:
    commands = [[line.split()[1] for line in recipe] for recipe in RECIPES]
    assert commands == [
        ["run", "score", "export", "export"],
        ["run", "score"],
        ["run", "export"],
        ["ensemble"],
        ["import", "export", "score"],
        ["score", "replay", "diff"],
    ]


@pytest.mark.usefixtures("endpoints")
def test_matches_with_two_models_and_one_of_them_again(capfd: pytest.CaptureFixture[str]) -> None:
    for game in ("final", "semifinal"):
        film(Path(f"matches/{game}/1_224p.mp4"), 14, ("red", 4.0, 8.0))
        film(Path(f"matches/{game}/2_224p.mp4"), 10)
    cook(0)
    told = capfd.readouterr().out
    assert re.search(r"all labels +\d+ +\d+ +0 +0 ", told)  # two that are one and the same agree in everything
    assert {v["fields"]["found"] for v in said("results/final/1_224p/verdicts.json")} == {"by all"}
    for game in ("final", "semifinal"):
        labels = {p["label"] for p in said(f"spotting/{game}/results_spotting.json")["predictions"]}
        assert "Red card" in labels
        assert len(said(f"predictions/{game}/1_224p.json")) >= len(labels)
        assert said(f"predictions/{game}/2_224p.json") == []
    Path("prompt.txt").write_text("What is to be seen here? Say only what is sure.")
    cook(1)
    again, before = asked("final/1_224p@2"), asked("final/1_224p")
    assert len(again) == 1
    assert again.isdisjoint(before)
    for game in ("final", "semifinal"):
        Path(f"labels/{game}").mkdir(parents=True)
        truth = [Spot(half=1, time_ms=6_000, label="Red card")]
        Path(f"labels/{game}/Labels-v2.json").write_bytes(soccernet.write_labels(game, truth))
    cook(5)
    assert "Red card" in said("thresholds.json")
    assert "score" in capfd.readouterr().out


@pytest.mark.usefixtures("endpoints")
def test_clips_with_heat_maps_become_one_submission_in_the_order_of_the_folder() -> None:
    for name in ("10", "2", "1"):
        film(Path(f"videos/{name}.mp4"), 2, ("blue", 0.5, 2.0))
        film(Path(f"heatmaps/{name}.mp4"), 2, ("red", 1.0, 2.0))
    cook(2)
    clips = submission.read(Path("submission.csv").read_bytes(), file="submission.csv")
    assert [c.video for c in clips] == ["1", "2", "10"]
    assert all("no AI" in c.reason for c in clips)


@pytest.mark.usefixtures("endpoints")
def test_six_submissions_become_one() -> None:
    for number in range(1, 7):
        written(f"sub{number}.csv", *numbered(*[replace(CLIP, start_frame=10 * number)] * 3))
    cook(3)
    clips = submission.read(Path("joined.csv").read_bytes(), file="joined.csv")
    assert [c.video for c in clips] == ["0", "1", "2"]
    assert all(c.start_frame in range(10, 70, 10) for c in clips)


def test_results_made_elsewhere_are_scored(capfd: pytest.CaptureFixture[str]) -> None:
    spots = [("1", 10_000, "Goal", 0.9), ("2", 70_000, "Corner", 0.5)]
    Path("theirs").mkdir()
    spotting("theirs/results_spotting.json", *spots)
    Path("labels/league/derby").mkdir(parents=True)
    truth = [Spot(half=int(half), time_ms=ms, label=label) for half, ms, label, _ in spots]
    Path("labels/league/derby/Labels-v2.json").write_bytes(soccernet.write_labels("league/derby", truth))
    cook(4)
    assert "looked at 100.0 %" in capfd.readouterr().out
