"""What the arguments of a command line stand for: streams, each with a name and an address. No bus, no task.

Looks at the file system, and at what an HTTP server says of an address; opens no video.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import category
from urllib.parse import unquote, urlsplit

from streamproc.errors import Misconfigured
from streamproc.video import address
from streamproc.video.endless import endless

log = logging.getLogger(__name__)

# fmt: off
VIDEOS = frozenset([
    "264", "265", "3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "h264", "h265", "hevc", "ivf", "m1v", "m2t",
    "m2ts", "m2v", "m4v", "mjpeg", "mjpg", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "nut", "obu", "ogm", "ogv",
    "rm", "rmvb", "ts", "vob", "webm", "wmv", "y4m",
])
# fmt: on
"""Endings by which a file in a folder is a video. A file that is named is taken, whatever its ending."""
LETTERS = 2**31
SHOWN = 5
"""Names of files left out that are told; the others are counted."""


@dataclass(frozen=True, slots=True)
class Found:
    """One stream to be."""

    name: str
    uri: str
    live: bool
    """A feed, which does not end by itself."""


def found(
    arguments: Sequence[str], *, name: str | None = None, say: Callable[[str], None] = log.warning
) -> list[Found]:
    """All streams of the arguments, in their order; `name` is that of a single one, or stands before those of a folder.

    `say` is told what was left out. Two streams of one name, and names that cannot be one, are Misconfigured.
    """
    if name is not None and len(arguments) > 1:
        raise Misconfigured(f"--name '{name}' is for one source; {len(arguments)} are given")
    streams = [one for argument in arguments for one in _one(argument, say)]
    if name is not None:
        streams = [replace(s, name=name if len(streams) == 1 else f"{name}/{s.name}") for s in streams]
    named: dict[str, Found] = {}
    _check_all([one.name for one in streams])
    for one in streams:
        if one.name in named:
            raise Misconfigured(
                f"'{address.redact(named[one.name].uri)}' and '{address.redact(one.uri)}' would both be stream "
                f"'{one.name}': rename one, or run them apart with --name"
            )
        named[one.name] = one
    return streams


def _check_all(names: Sequence[str]) -> None:
    """All that is wrong with them at once: who has a thousand files wants to rename them in one go."""
    if len(names) == 1:
        check(names[0])
        return
    wrong = [(name, problem) for name in names if (problem := _problem(name))]
    if wrong:
        told = ", ".join(f"{_shown(name)} {problem}" for name, problem in wrong[:SHOWN])
        more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise Misconfigured(
            f"{len(wrong)} of {len(names)} names can be none of a stream: {told}{more}; rename the files"
        )


def check(name: str, *, remedy: str = "give another with --name, or rename the file") -> None:
    """Whether a stream of its own may be called so; replays and repeats have their `@` from elsewhere."""
    if problem := _problem(name):
        raise Misconfigured(f"stream name {_shown(name)} {problem}; {remedy}")


def _shown(name: str) -> str:
    return repr(name.encode(errors="backslashreplace").decode())


def _problem(name: str) -> str | None:
    rules = {
        "is empty": not name,
        "has an empty part, '.' or '..' between its slashes": any(p in {"", ".", ".."} for p in name.split("/")),
        "has a control character": any(category(c) == "Cc" for c in name),
        "is no Unicode": any(category(c) == "Cs" for c in name),
        "has an '@', which names of replays and repeats have": "@" in name,
    }
    return next((problem for problem, broken in rules.items() if broken), None)


def _one(argument: str, say: Callable[[str], None]) -> Iterator[Found]:
    if argument.startswith(address.STACK):
        yield from _stacked(argument)
    elif argument.startswith("webcam:"):
        yield Found(argument.replace(":", "-"), argument, live=address.scheme_of(argument) in address.LIVE)
    elif "://" in argument and not argument.startswith("file://"):
        yield Found(name_at(argument), argument, live=address.scheme_of(argument) in address.LIVE or endless(argument))
    else:
        yield from _paths(Path(argument.removeprefix("file://")), say)


# files and folders --------------------------------------------------------------------------------------------------


def _paths(path: Path, say: Callable[[str], None]) -> Iterator[Found]:
    if path.is_dir():
        for name, file in videos(path, say).items():
            yield Found(name, os.path.abspath(file), live=False)
    elif path.exists():
        yield Found(path.stem, os.path.abspath(path), live=False)
    else:
        raise Misconfigured(f"'{path}': no such file or folder")


def videos(folder: Path, say: Callable[[str], None] = log.warning) -> dict[str, Path]:
    """Videos of a folder and all below it, by name: the relative path without its ending, in natural order."""
    named: dict[str, Path] = {}
    others: list[str] = []
    for file in in_folder(folder):
        name = file.relative_to(folder).with_suffix("").as_posix()
        if file.suffix[1:].lower() not in VIDEOS:
            others.append(str(file.relative_to(folder)))
        elif name in named:
            raise Misconfigured(f"'{named[name]}' and '{file}' would both be stream '{name}': rename one of them")
        else:
            named[name] = file
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        say(f"{folder}: left out, as no videos by their endings: {', '.join(others[:SHOWN])}{more}")
    if not named:
        raise Misconfigured(f"'{folder}': there is no video in this folder")
    return named


def in_folder(folder: Path) -> list[Path]:
    """Files below a folder, hidden ones and what hidden folders hold left out, in natural order."""
    files: list[Path] = []
    seen = set[str]()
    for root, folders, names in os.walk(folder, onerror=_closed, followlinks=True):
        seen.add(os.path.realpath(root))  # a link may lead back up
        inside = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in inside if os.path.realpath(Path(root, name)) not in seen]
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted((f for f in files if f.is_file()), key=lambda f: natural(f.relative_to(folder).parts))


def _closed(error: OSError) -> None:
    raise Misconfigured(f"{error.filename}: {error.strerror}") from error


def natural(parts: Iterable[str]) -> list[list[tuple[int, str]]]:
    """A key by which `half 2` stands before `half 10`."""
    return [[_order(piece) for piece in re.split(r"([0-9]+)", part) if piece] for part in parts]


def _order(piece: str) -> tuple[int, str]:
    """Numbers by how many digits they have and then by these, before letters."""
    number = piece.lstrip("0") or "0"
    return (len(number), number) if piece.isascii() and piece.isdecimal() else (LETTERS, piece)


# addresses ----------------------------------------------------------------------------------------------------------


def name_at(uri: str) -> str:
    """The last part of an address without its ending; a live one's server stands before it, since `live` is what most
    cameras call theirs."""
    parts = urlsplit(uri)
    path = [unquote(part) for part in parts.path.split("/") if part]
    last = path[-1].rpartition(".")[0] or path[-1] if path else ""
    if parts.scheme.lower() not in address.LIVE and last:
        return last
    host = parts.netloc.rpartition("@")[2]
    return "/".join(part for part in (host, *path[:-1], last) if part)


# pairs --------------------------------------------------------------------------------------------------------------


def _stacked(argument: str) -> Iterator[Found]:
    top, bottom = (Path(half) for half in address.halves(argument))
    if top.is_dir() and bottom.is_dir():
        above, below = videos(top), videos(bottom)
        alone = sorted(above.keys() ^ below.keys())
        if alone:
            side = top if alone[0] in above else bottom
            raise Misconfigured(
                f"'{argument}': '{alone[0]}' is only in {side} ({len(alone)} are without their other half)"
            )
        for name, file in above.items():
            yield Found(name, _pair(file, below[name]), live=False)
    elif top.is_file() and bottom.is_file():
        name = top.stem if top.stem == bottom.stem else f"{top.stem}+{bottom.stem}"
        yield Found(name, _pair(top, bottom), live=False)
    else:
        raise Misconfigured(f"'{argument}': one is a file and the other a folder; two files or two folders make pairs")


def _pair(top: Path, bottom: Path) -> str:
    return f"{address.STACK}{os.path.abspath(top)}+{os.path.abspath(bottom)}"
