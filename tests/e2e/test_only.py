"""One stage today and another tomorrow: who comes later finds all that was said, from the first of it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from tests.e2e.films import film
from tests.e2e.logs import records

TASK = """
name = "everything"
labels = "red box, blue box"
[sampling]
fps = "1"
[caption]
[detect]
[dedup]
[locate]
model = "observer"
samples = 1
stretch_s = 8
[describe]
samples = 1
[ensemble]
over = "events"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    film(Path("m.mp4"), 40, ("red", 1.0, 3.0), ("blue", 12.0, 15.0), ("red", 24.0, 27.0), ("blue", 35.0, 40.0))
    Path("everything.toml").write_text(TASK)


def run(bus: str, *arguments: str) -> int:
    command = ["run", "m.mp4", "--task", "everything.toml", "--bus", f"embedded:{bus}.db", *arguments]
    return exit_code(build(), command)


def made(name: str, bus: str) -> list[tuple[Any, ...]]:
    found = sorted(records(name, "m", f"embedded:{bus}.db"), key=lambda r: (r.service, r.root, r.index))
    said = ("label", "time_ms", "fields", "inputs", "event", "text", "frame", "reason", "outcome")
    return [(r.id, *(getattr(r, field, None) for field in said)) for r in found]


@pytest.mark.parametrize("last", [["locate", "describe", "ensemble"], ["describe,locate", "ensemble"]])
def test_a_stage_that_runs_later_answers_everything_from_the_first_on(
    last: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("whole") == Code.DONE
    assert run("parts", "--only", "caption,detect,dedup") == Code.DONE
    assert made("events", "parts") == made("events", "whole")
    assert not made("verdicts", "parts")
    for only in last:
        assert run("parts", "--only", only) == Code.DONE
    for name in ("incidents", "events", "descriptions", "verdicts"):
        assert made(name, "parts") == made(name, "whole") != []
    assert len([v for v in records("verdicts", "m", "embedded:parts.db") if v.label]) == 4
    assert exit_code(build(), ["coverage", "m", "--bus", "embedded:parts.db"]) == Code.DONE
    capfd.readouterr()
    assert run("parts", "--json") == Code.DONE  # nothing is left to do
    assert '"calls":0' in capfd.readouterr().out.splitlines()[-1]
