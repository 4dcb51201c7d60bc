"""The frame of the command line: codes, streams, help, and that nothing heavy is imported to print it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from streamproc import errors
from streamproc.cli import build, frame
from streamproc.cli.frame import Code, exit_code

HEAVY = {
    "aiohttp",
    "aiokafka",
    "av",
    "fastapi",
    "matplotlib",
    "numpy",
    "openai",
    "pydantic_settings",
    "simplejpeg",
    "uvicorn",
}


def streamproc(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamproc", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
    )


def every_command(app: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for group in app.registered_groups:
        assert group.typer_instance
        assert group.name or group.typer_instance.info.name
        yield from every_command(group.typer_instance, (*path, str(group.name or group.typer_instance.info.name)))
    for command in app.registered_commands:
        assert command.callback
        yield (*path, command.name or command.callback.__name__.replace("_", "-"))


def failing(error: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise error

    return app


def test_the_one_command_that_is_asked_for_is_laid_out_as_all_of_them_are() -> None:
    whole = list(every_command(build()))
    for first in {command[0] for command in whole}:
        alone = list(every_command(build(first)))
        assert {*alone} >= {command for command in whole if command[0] == first}
    for unknown in (None, "rum", "frame", "--help", "a/path.mp4"):
        assert list(every_command(build(unknown))) == whole


@pytest.mark.parametrize("command", list(every_command(build())), ids=" ".join)
def test_the_help_of_every_command_has_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(build(), [*command, "--help"]) == Code.DONE
    told = " ".join(capsys.readouterr().out.split())
    usage = f"streamproc {' '.join(command)}"
    assert told.count(usage) >= 2, f"beside 'Usage: {usage}' one that can be copied"


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from streamproc.cli import build; from streamproc.cli.frame import exit_code; "
        "code = exit_code(build(), ['--help']); print(*sorted(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0
    assert "Usage: streamproc" in told.stdout
    assert HEAVY.isdisjoint(told.stderr.split())


def test_results_go_to_stdout_and_all_else_to_stderr() -> None:
    assert streamproc("--version").stdout.strip()
    wrong = streamproc("no-such-command")
    assert (wrong.returncode, wrong.stdout) == (Code.USAGE, "")
    assert "No such command 'no-such-command'" in wrong.stderr
    assert "See streamproc --help" in wrong.stderr


def test_wrong_settings_are_wrong_usage_in_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "streamproc.toml").write_text("partitons = 4")
    told = streamproc("status", cwd=tmp_path)
    assert told.returncode == Code.USAGE
    assert told.stderr == "no setting 'partitons'; did you mean 'partitions'?\n"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (errors.Misconfigured("no such topic"), Code.USAGE, "no such topic\n"),
        (errors.Unreachable("broker", "silent", remedy="Start it."), Code.UNREACHABLE, "broker: silent. Start it.\n"),
        (errors.Corrupt("the log is cut"), Code.FAILED, "the log is cut\n"),
        (errors.Rejected("rtsp://me:hush@cam/1 is no stream"), Code.FAILED, "rtsp://***@cam/1 is no stream\n"),
        (errors.Rejected("rtsp://me:hu@sh@cam/1 is no stream"), Code.FAILED, "rtsp://***@cam/1 is no stream\n"),
        (
            FileNotFoundError(2, "No such file or directory", "match1.mp4"),
            Code.FAILED,
            "match1.mp4: No such file or directory\n",
        ),
        (TimeoutError(), Code.FAILED, "TimeoutError\n"),
        (KeyError("x"), Code.FAILED, "KeyError: 'x'\nThis is a mistake in streamproc; --debug shows where.\n"),
        (KeyboardInterrupt(), Code.INTERRUPTED, "interrupted\n"),
        (typer.Abort(), Code.INTERRUPTED, "interrupted\n"),
        (typer.Exit(Code.INCOMPLETE), Code.INCOMPLETE, ""),
        (
            ExceptionGroup("", [errors.Corrupt("one"), ExceptionGroup("", [errors.Corrupt("one")])]),
            Code.FAILED,
            "one\n",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else type(value).__name__,
)
def test_every_end_has_its_code_and_plain_words(
    error: BaseException, code: Code, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(failing(error), []) == code
    assert capsys.readouterr().err == told


def test_a_traceback_is_shown_only_to_those_who_debug(capsys: pytest.CaptureFixture[str]) -> None:
    before = frame.given.set(frame.Given(debug=True))
    try:
        exit_code(failing(errors.Corrupt("the log is cut")), [])
    finally:
        frame.given.reset(before)
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert told.endswith("the log is cut\n")


def test_ctrl_c_cancels_the_work_lets_it_clean_up_and_ends_with_130() -> None:
    program = """
import asyncio, sys
from streamproc.cli import frame
import typer
app = typer.Typer()
@app.command()
def wait():
    async def work():
        try:
            print("ready", flush=True)
            await asyncio.sleep(60)
        finally:
            print("given back", flush=True)
    frame.run(work())
sys.exit(frame.exit_code(app, []))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (Code.INTERRUPTED, "given back\n", "interrupted\n")


def test_whoever_never_reads_us_makes_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    told = subprocess.run(
        [sys.executable, "-m", "streamproc", "--version"], stdout=write, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(write)
    assert (told.returncode, told.stderr) == (Code.DONE, b"")


ALONE = """
    while True:
        frame.emit({"a": 1})
"""
BESIDE_OTHERS = """
    async def work():
        async with asyncio.TaskGroup():
            while True:
                frame.emit({"a": 1})
    frame.run(work())
"""


@pytest.mark.parametrize("talks", [ALONE, BESIDE_OTHERS])
def test_whoever_stops_reading_us_makes_no_error(talks: str) -> None:
    program = f"""
import asyncio, sys, typer
from streamproc.cli import frame
app = typer.Typer()
@app.command()
def talk():{talks}
sys.exit(frame.exit_code(app, []))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert json.loads(process.stdout.readline()) == {"a": 1}
        process.stdout.close()
        assert process.wait(timeout=30) == Code.DONE
        assert process.stderr.read() == ""


def test_in_a_pipe_columns_are_as_wide_as_they_need_and_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    frame.table(["name", "about"], [["x" * 200, None], ["y", 7]])
    assert capsys.readouterr().out.splitlines() == ["name" + " " * 198 + "about", "x" * 200, "y" + " " * 201 + "7"]


def test_what_others_wrote_is_no_command_to_the_terminal_in_tables_words_and_logs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame.table(["seen"], [["404\x1b[2J\nnot \u2066here"]])
    frame.say("first\nsecond\x1b[2J\x9b1m")
    assert capsys.readouterr() == ("seen\n404\\x1b[2J\\nnot \\u2066here\n", "first\nsecond\\x1b[2J\\x9b1m\n")
    program = """
import logging
from streamproc.cli import frame
frame.settings()
logging.getLogger("streamproc.models").warning("it says %s", "\\x1b[2J\\nno")
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert told.stderr.endswith("WARNING streamproc.models: it says \\x1b[2J\\nno\n")


def test_colour_is_for_terminals_only() -> None:
    read, write = os.openpty()
    program = "from streamproc.cli import frame; frame.table(['name'], [['x']])"
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm-256color"}
    subprocess.run([sys.executable, "-c", program], stdout=write, timeout=60, check=True, env=env)
    os.close(write)
    assert b"\x1b[1m" in os.read(read, 4096)
    os.close(read)
    assert (
        "\x1b"
        not in subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    )
