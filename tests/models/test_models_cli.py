"""`streamproc models`: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamproc.cli import build
from streamproc.cli.frame import exit_code
from streamproc.models.observer import Settings, running


@dataclass(frozen=True)
class Told:
    returncode: int
    stdout: str
    stderr: str


Models = Callable[..., Told]


@pytest.fixture
def models(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    """The command in this process: starting one for each line would take most of the time."""
    monkeypatch.chdir(tmp_path)  # no settings of ours

    def call(*arguments: str) -> Told:
        code = exit_code(build(), ["models", *arguments])
        return Told(code, *capfd.readouterr())

    return call


def test_the_list_names_every_card(models: Models) -> None:
    told = models("list", "--json")
    assert told.returncode == 0, told.stderr
    assert {"qwen2.5-vl-7b", "gpt-4o", "observer"} <= {c["name"] for c in json.loads(told.stdout)}
    assert "qwen2.5-vl-7b" in models("list").stdout


def test_a_card_is_shown_with_its_notes_and_sources(models: Models) -> None:
    told = models("show", "phi-3.5-vision")
    assert "sampling.repetition_penalty = 1.2" in told.stdout
    assert "  note: " in told.stdout
    assert "  from: " in told.stdout
    assert json.loads(models("show", "phi-3.5-vision", "--json").stdout)["sampling"] == {
        "temperature": 0.0,
        "repetition_penalty": 1.2,
    }


def test_a_card_that_there_is_not_is_wrong_usage(models: Models) -> None:
    told = models("show", "phi-3.5")
    assert (told.returncode, told.stdout) == (2, "")
    assert "did you mean 'phi-3.5-vision'" in told.stderr


def test_serve_prints_the_command_that_it_would_run(models: Models) -> None:
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
    told = subprocess.run(
        [sys.executable, "-m", "streamproc", "models", "serve", "gpt-oss-120b", "--port", "8123"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PATH": str(tmp_path)},
    )
    assert told.returncode == 7
    assert told.stdout.startswith("serve openai/gpt-oss-120b")
    assert "--port 8123" in told.stdout


def test_serve_without_vllm_says_what_to_install(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    told = models("serve", "gpt-oss-120b")
    assert told.returncode == 2
    assert "pip install 'streamproc[gpu]'" in told.stderr


async def test_check_says_what_a_live_endpoint_honours_and_what_to_write(models: Models) -> None:
    async with running(Settings(image_limit=5)) as (url, _):
        told = await asyncio.to_thread(models, "check", f"observer@{url}", "--json")
        shown = await asyncio.to_thread(models, "check", f"observer@{url}")
    assert told.returncode == 0, told.stderr
    (replica,) = json.loads(told.stdout)["replicas"]
    assert replica["url"] == url
    assert {f["ability"]: f["write"] for f in replica["findings"]}["images"] == "image_limit = 5"
    assert "image_limit = 5" in shown.stdout


async def test_check_fails_where_another_model_is_served_and_where_nobody_is(models: Models) -> None:
    async with running(Settings(model="observer")) as (url, _):
        told = await asyncio.to_thread(models, "check", f"gpt-oss-120b@{url}")
    assert told.returncode == 1
    assert 'served_name = "observer"' in told.stdout
    assert (await asyncio.to_thread(models, "check", f"gpt-oss-120b@{url}")).returncode == 4
