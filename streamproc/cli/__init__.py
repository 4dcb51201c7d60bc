"""The command line. Each room of it is a module here with `register(app)`; what they share stands in `frame`.

A room imports what is heavy inside its commands, so that `streamproc --help` answers at once.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import signal
import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Annotated, NoReturn

import typer

from streamproc import __version__
from streamproc.cli import frame

__all__ = ["build", "main"]


def build(only: str | None = None) -> typer.Typer:
    """The command line: the frame's own options, then every room there is; or the one of the command that is asked for,
    since to lay out all of them takes a tenth of a second."""
    app = typer.Typer(
        name="streamproc",
        help="Video in, what happened in it out: an exactly-once stream processor for vision-language models.",
        epilog="Every command says more with --help. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but coverage "
        "is incomplete, 4 endpoint or broker unreachable, 130 interrupted.",
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help: the same in a terminal, a pipe and a manual, and it needs no import of rich
        pretty_exceptions_enable=False,  # its tracebacks would show locals, and so secrets
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_given)
    rooms = sorted(found.name for found in pkgutil.iter_modules(__path__))
    if only in rooms and hasattr(room := _room(only), "register"):
        room.register(app)
        return app
    for room in map(_room, rooms):
        if hasattr(room, "register"):
            room.register(app)
    return app


def _room(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")


def _version(asked: bool) -> None:
    if asked:
        frame.line(__version__)
        raise typer.Exit


def _given(
    settings: Annotated[
        str | None, typer.Option("--settings", metavar="FILE", help="Settings file instead of ./streamproc.toml.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything, and show tracebacks.")] = False,
    version: Annotated[  # noqa: ARG001  # its callback has answered by then
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and leave.")
    ] = False,
) -> None:
    frame.given.set(frame.Given(settings_file=settings, debug=debug))


def main() -> None:
    # As Ctrl-C from the first moment on; commands that have something to finish take it over once they are at work.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app = build(next((said for said in sys.argv[1:] if not said.startswith("-")), None))
    except KeyboardInterrupt:
        sys.exit(frame.Code.INTERRUPTED)
    _leave(frame.exit_code(app, sys.argv[1:]))


def _leave(code: int) -> NoReturn:
    """At once: everything has been closed, and taking apart what was loaded would take a third of a second."""
    logging.shutdown()
    for file in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            file.flush()
    os._exit(code)
