"""The command line. Each room of it is a module here with `register(app)`; what they share stands in `frame`.

A room imports what is heavy inside its commands, so that `streamproc --help` answers at once. Here nothing is imported at
the top but what Python has loaded by then: a Ctrl-C before `main` has begun would show a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import ModuleType

    import typer

__all__ = ["build", "main"]


def build(only: str | None = None) -> typer.Typer:
    """The command line: the frame's own options, then every room there is; or the one of the command that is asked for,
    since to lay out all of them takes a tenth of a second."""
    import pkgutil

    import typer

    from streamproc.cli import frame

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
    app.callback()(frame.options)
    rooms = sorted(found.name for found in pkgutil.iter_modules(__path__))
    if only in rooms and hasattr(room := _room(only), "register"):
        room.register(app)
        return app
    for room in map(_room, rooms):
        if hasattr(room, "register"):
            room.register(app)
    return app


def _room(name: str) -> ModuleType:
    from importlib import import_module

    return import_module(f"{__name__}.{name}")


def main() -> None:
    # As Ctrl-C from the first moment on; commands that have something to finish take it over once they are at work.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app = build(next((said for said in sys.argv[1:] if not said.startswith("-")), None))
        from streamproc.cli import frame

        _leave(frame.exit_code(app, sys.argv[1:]))
    except KeyboardInterrupt:  # before anything was begun, or after all of it was closed
        os._exit(130)  # Code.INTERRUPTED, which may not be there so early


def _leave(code: int) -> NoReturn:
    """At once: everything has been closed, and taking apart what was loaded would take a third of a second."""
    import logging
    from contextlib import suppress

    logging.shutdown()
    for file in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            file.flush()
    os._exit(code)
