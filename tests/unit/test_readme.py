"""What the README says can be run runs, and what it points at is there."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
SHELL = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def test_every_shell_line_is_of_a_kind_that_is_tested_here() -> None:
    assert SHELL
    for line in SHELL:
        assert line.startswith(("make ", "streamproc ", ".venv/bin/python -m ")), line


def test_the_commands_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")
    for line in SHELL:
        if line.startswith("streamproc "):
            assert exit_code(build(), shlex.split(line)[1:]) == Code.DONE, line


def test_the_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for line in SHELL if line.startswith("make ")} | set(re.findall(r"`make (\w+)", README))
    assert named <= targets


def test_the_modules_that_are_run_are_there() -> None:
    for line in SHELL:
        if line.startswith(".venv/bin/python -m "):
            assert find_spec(f"{line.split()[2]}.__main__"), line


def test_the_map_shows_every_room_and_no_room_that_is_not_there() -> None:
    rows = README.partition("## Map")[2].partition("## ")[0]
    named = {
        path
        for row in rows.splitlines()
        if row.startswith("|")
        for path in re.findall(r"`([\w./]+)`", row.split("|")[1])
    }
    for path in named:
        assert (ROOT / path).exists(), path
    rooms = {
        p.name for p in (ROOT / "streamproc").iterdir() if not p.name.startswith(("_", ".")) and p.name != "py.typed"
    }
    rooms -= {"data"}
    assert rooms == {Path(path).name for path in named if path.startswith("streamproc/")}


def test_every_invariant_names_a_test_that_is_there() -> None:
    invariants = [
        line for line in README.partition("## Non-obvious")[2].partition("## ")[0].splitlines() if line.startswith("- ")
    ]
    assert invariants
    for line in invariants:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)
        assert named, line
        for file, test in named:
            assert re.search(rf"def {test}\b", (ROOT / file).read_text()), f"{file}::{test}"


def test_every_dependency_has_its_reason_in_the_table() -> None:
    table = README.partition("## Dependencies")[2].partition("## ")[0].lower()
    project = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("\n]")[0]
    for name in re.findall(r'^  "([\w-]+)', project, re.MULTILINE):
        assert name.lower() in table, name
