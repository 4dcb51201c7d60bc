"""What all commands share: exit codes, errors as plain lines, settings, results as JSON or for people. No command.

Results go to stdout, all else to stderr. On a terminal people get colour and tables; in a pipe plain columns that no
width cuts off; with `--json` one document, or one a line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from streamproc import __version__
from streamproc.errors import Misconfigured, Retryable, StreamprocError, Unreachable

if TYPE_CHECKING:
    from streamproc.bus.contract import Bus
    from streamproc.settings import Settings

T = TypeVar("T")

BusOption = Annotated[
    str | None,
    typer.Option("--bus", metavar="BUS", help="embedded:PATH or kafka://host:port[,…]; else as the settings say."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print results as JSON.")]

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any option of the task; @FILE reads the value from a file."),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="STAGE=ENDPOINT", help="Who answers for a stage; may be repeated."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes that decode; by default one a core.")
]


AGAIN_S = 0.5
"""A bus that is away is asked so often."""


class Code(IntEnum):
    """How a command ended, for scripts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Given:
    """Options that stand before the command."""

    settings_file: str | None = None
    debug: bool = False


given: ContextVar[Given] = ContextVar("given", default=Given())  # noqa: B039  # frozen, so sharing the default is safe


def _version(asked: bool) -> None:
    if asked:
        line(__version__)
        raise typer.Exit


def options(
    settings: Annotated[
        str | None, typer.Option("--settings", metavar="FILE", help="Settings file instead of ./streamproc.toml.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything, and show tracebacks.")] = False,
    version: Annotated[  # noqa: ARG001  # its callback has answered by then
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and leave.")
    ] = False,
) -> None:
    given.set(Given(settings_file=settings, debug=debug))


# ends ---------------------------------------------------------------------------------------------------------------


def exit_code(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a command line to its end; whatever it raises is told on stderr and becomes a code."""
    try:
        ended = app(args=list(arguments), prog_name="streamproc", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as e:
        if not isinstance(e.__context__, BrokenPipeError):  # typer makes the one of the other
            raise
        return _unread()
    except (KeyboardInterrupt, asyncio.CancelledError):
        ended = Code.INTERRUPTED
    except Exception as e:  # noqa: BLE001  # the outermost edge: what nobody mapped still ends as a line and a code
        errors = list(_leaves(e))
        if all(isinstance(error, BrokenPipeError) for error in errors):
            return _unread()
        return max(_told(error) for error in errors)
    if ended == Code.INTERRUPTED:
        say("interrupted")
    return ended if isinstance(ended, int) else Code.DONE


def _unread() -> Code:
    """Whoever reads us has seen enough; that is no failure of ours."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # stdout, or the interpreter's last flush fails again
    return Code.DONE


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Task groups wrap what went wrong inside them; people want to read the errors themselves, each once."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    seen = set()
    for part in error.exceptions:
        for leaf in _leaves(part):
            if str(leaf) not in seen:
                seen.add(str(leaf))
                yield leaf


def _told(error: BaseException) -> Code:
    """The error on stderr, in a line or two, and the code it ends with."""
    if isinstance(error, typer.TyperException):
        context, message = getattr(error, "ctx", None), error.format_message()
        hint = f"\nSee {context.command_path if context else 'streamproc'} --help"
        say(message if "--help" in message else message + hint)
        return Code(error.exit_code)
    if isinstance(error, typer.Abort):
        say("interrupted")
        return Code.INTERRUPTED
    if isinstance(error, Unreachable):
        return _failed(error, str(error), Code.UNREACHABLE)
    if isinstance(error, StreamprocError):
        return _failed(error, str(error), Code.USAGE if isinstance(error, Misconfigured) else Code.FAILED)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _failed(error, f"{where}{error.strerror or str(error) or type(error).__name__}", Code.FAILED)
    hint = "" if _debugging() else "\nThis is a mistake in streamproc; --debug shows where."
    return _failed(error, f"{type(error).__name__}: {error}{hint}", Code.FAILED)


def _failed(error: BaseException, text: str, code: Code) -> Code:
    if _debugging():
        say("".join(traceback.format_exception(error)).rstrip())
    say(text)
    return code


def _debugging() -> bool:
    return given.get().debug or logging.getLogger("streamproc").getEffectiveLevel() <= logging.DEBUG


# work ---------------------------------------------------------------------------------------------------------------


def settings(**options: Any) -> Settings:
    """Settings under a command's own options (None: not given), with logging set up as they say."""
    from streamproc.settings import load

    said = given.get()
    file = Path(said.settings_file) if said.settings_file else None
    told = load({name.replace("__", "."): value for name, value in options.items()}, file=file)
    level = "debug" if said.debug else told.log_level
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Log("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("streamproc").setLevel(level.upper())
    return told


def run(work: Coroutine[Any, Any, T]) -> T:
    """Work on a loop to its end; Ctrl-C cancels it, and what it holds is given back before we leave."""
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    finally:
        work.close()  # of one that never began, or Python complains of it


def let_sigterm_drain() -> None:
    """SIGTERM as Ctrl-C: what is under way is finished and landed. The second one leaves at once."""
    task = asyncio.current_task()
    assert task is not None, "called from a coroutine"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


@asynccontextmanager
async def opened(told: Settings, *, make: bool = False) -> AsyncIterator[Bus]:
    """The bus, closed at the end. An embedded one that is not there is only made where the command is for that."""
    from streamproc.settings import EmbeddedAt, open_bus, parse_bus

    at = parse_bus(told.bus)
    if isinstance(at, EmbeddedAt) and not make and not at.path.exists():
        raise Unreachable(
            f"embedded bus {at.path}",
            "there is no such file",
            remedy="Name another by --bus, or make it: streamproc topics create",
        )
    bus = await open_bus(told)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def deployed(told: Settings) -> AsyncIterator[Bus]:
    """The bus with all its topics, made where they are not there."""
    from streamproc.topics import deployment

    async with opened(told, make=True) as bus:
        await bus.create(deployment())
        yield bus


class Patience:
    """Of commands that look again and again: a bus that is away is told of once an outage, and waited for, as the services
    beside them wait for it. Else those who only look would take down those who work."""

    def __init__(self) -> None:
        self._away = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        try:
            yield
        except Retryable as e:
            if not self._away:
                say(f"{e} Waiting for it.")
            self._away = True
        else:
            if self._away:
                say("The bus answers again.")
            self._away = False

    async def until(self, had: Callable[[], Awaitable[T]]) -> T:
        """What can be had only once the bus is there."""
        answers: list[T] = []
        while True:
            with self():
                answers.append(await had())
            if answers:
                return answers[0]
            await asyncio.sleep(AGAIN_S)


# results ------------------------------------------------------------------------------------------------------------


def line(text: str) -> None:
    """A line of results."""
    sys.stdout.write(text + "\n")


def emit(document: object) -> None:
    """A result as one line of JSON, out at once: whoever follows a stream of them waits for it."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Results for people. In a pipe the columns are as wide as they need: nothing is cut."""
    texts = [["" if cell is None else plain(str(cell), most=None) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for row in texts:
            drawn.add_row(*(Text(cell) for cell in row))
        Console().print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    for row in (list(columns), *texts):
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


LONGEST = 300
"""Characters of what somebody else wrote, as a model, that stand in one place; scripts get all."""

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, colours, breaks the line or turns the direction of what follows."""


def plain(text: str, *, most: int | None = LONGEST) -> str:
    """What a model, a server or a file says, as people are shown it: in one line, cut where it is long, and nothing of it is
    a command to their terminal. `--json` and files have it as it is."""
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


_PASSWORD = re.compile(r"//[^/\s]+@")


def say(text: str) -> None:
    """A word to people, beside the results. Passwords in addresses are left out."""
    lines = (plain(part, most=None) for part in _PASSWORD.sub("//***@", text).split("\n"))
    sys.stderr.write("\n".join(lines) + "\n")


class _Log(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging calls it so
        return plain(super().formatMessage(record), most=None)
