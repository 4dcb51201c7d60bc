"""`streamproc models`: what it prints, and how it ends."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path


def models(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamproc", "models", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": str(path) if path else "/nowhere", "HOME": "/nowhere"},
    )


def test_the_list_names_every_card() -> None:
    told = models("list", "--json")
    assert told.returncode == 0, told.stderr
    assert {"qwen2.5-vl-7b", "gpt-4o", "observer"} <= {c["name"] for c in json.loads(told.stdout)}
    assert "qwen2.5-vl-7b" in models("list").stdout


def test_a_card_is_shown_with_its_notes_and_sources() -> None:
    told = models("show", "phi-3.5-vision")
    assert "sampling.repetition_penalty = 1.2" in told.stdout
    assert "  note: " in told.stdout
    assert "  from: " in told.stdout
    assert json.loads(models("show", "phi-3.5-vision", "--json").stdout)["sampling"] == {
        "temperature": 0.0,
        "repetition_penalty": 1.2,
    }


def test_a_card_that_there_is_not_is_wrong_usage() -> None:
    told = models("show", "phi-3.5")
    assert (told.returncode, told.stdout) == (2, "")
    assert "did you mean 'phi-3.5-vision'" in told.stderr


def test_serve_prints_the_command_that_it_would_run() -> None:
    told = models("serve", "qwen2.5-vl-7b", "--dry-run", "--streams", "64", "--", "--seed", "1")
    arguments = shlex.split(told.stdout)
    assert arguments[:3] == ["vllm", "serve", "Qwen/Qwen2.5-VL-7B-Instruct"]
    assert arguments[-2:] == ["--seed", "1"]
    assert arguments[arguments.index("--max-num-batched-tokens") + 1] == "66560"
    assert models("serve", "qwen2.5-vl-7b", "--dry-run", "--size", "4k").returncode == 2


def test_serve_becomes_vllm_with_its_exit_code(tmp_path: Path) -> None:
    """A real executable of that name, which says what it was called with."""
    vllm = tmp_path / "vllm"
    vllm.write_text('#!/bin/sh\necho "$@"\nexit 7\n')
    vllm.chmod(0o755)
    told = models("serve", "gpt-oss-120b", "--port", "8123", path=tmp_path)
    assert told.returncode == 7
    assert told.stdout.startswith("serve openai/gpt-oss-120b")
    assert "--port 8123" in told.stdout


def test_serve_without_vllm_says_what_to_install() -> None:
    told = models("serve", "gpt-oss-120b")
    assert told.returncode == 2
    assert "pip install 'streamproc[gpu]'" in told.stderr
