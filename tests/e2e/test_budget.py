"""A budget that ends before the film does: what is left out is said, counted, and no dead letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from tests.e2e.films import film


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")
    film(tmp_path / "match.mp4", 30, ("red", 4.0, 9.0))
    return tmp_path


def run(*arguments: str) -> int:
    return exit_code(build(), ["run", "match.mp4", "--set", "labels=red box", "--out", "out", *arguments])


def rows(name: str) -> list[Any]:
    return [json.loads(line) for line in Path("out/match", name).read_text().splitlines()]


def test_a_run_over_its_budget_goes_to_its_end_and_says_what_it_left_out(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "streamproc.toml").write_text("[budgets.'task:any']\ncalls = 20\n")
    assert run("--json") == Code.INCOMPLETE
    receipt = json.loads(capfd.readouterr().out.splitlines()[-1])["receipt"]
    budget = receipt["budgets"]["task:any"]
    assert (budget["calls"], budget["left_out"]) == (20, 10)  # 15 windows, captioned and looked at
    said = [*rows("captions.jsonl"), *rows("detections.jsonl")]
    assert len(said) == 30
    left_out = [r for r in said if r["outcome"] != "done"]
    assert [(r["outcome"], r["reason"]) for r in left_out] == [("skipped", "budget")] * 10
    smaller = [r for r in said if "of the budget of 'task:any' is spent" in r.get("how", "")]
    assert len(smaller) == budget["smaller"]
    assert smaller
    assert exit_code(build(), ["dlq", "list", "--json"]) == 0
    assert "budget" not in capfd.readouterr().out


def test_a_budget_of_another_source_is_not_touched(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "streamproc.toml").write_text("[budgets.'source:other']\ncalls = 1\n")
    assert run() == Code.DONE
    assert "budget" not in capfd.readouterr().err


def test_people_are_told_what_a_budget_did(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # One call at a time: of calls that begin together nobody knows what they will cost before the first has its answer.
    (here / "streamproc.toml").write_text("[bounds]\ncalls = 1\n[budgets.'source:match']\ntokens = 1\n")
    assert run("--only", "detect") == Code.INCOMPLETE
    assert "budget of source:match: " in capfd.readouterr().err
