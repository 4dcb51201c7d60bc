"""Results as files: `DIR/STREAM/` has one file a topic, in one order, without anything that a second run would say otherwise.

`summary.json` is written last: where it is complete, the stream is done, also for a run on another bus. It alone speaks
of clocks, tokens and versions.
"""

from __future__ import annotations

import asyncio
import glob
import hashlib
import json
import os
import secrets
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from streamproc import __version__
from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.errors import Fatal, Misconfigured
from streamproc.messages import Answer, Event, Life, Record, Source
from streamproc.pipeline.newcomers import Newcomers
from streamproc.pipeline.progress import KINDS, Progress
from streamproc.pipeline.streams import Wanted
from streamproc.task import Task
from streamproc.topics import topic
from streamproc.video import address

SUMMARY = "summary.json"
PART = ".part"
DEAD_S = 3600.0
"""A file is written within seconds: whoever left a part of one so long ago was killed."""
CLOCKS = ("seconds", "attempts", "tokens")
"""What another run of the same would say otherwise: a cache may be warm, a server slow."""


@dataclass(frozen=True, slots=True)
class File:
    """What becomes of a topic."""

    name: str
    topic: str
    rows: Callable[[Sequence[Any]], Iterable[dict[str, Any]]]


def _as_they_are(records: Sequence[Record]) -> Iterable[dict[str, Any]]:
    return (_row(r) for r in records if not r.ended)


def newest(records: Iterable[Event]) -> list[tuple[Event, Life]]:
    """Every event once, as its last revision says."""
    last: dict[str, tuple[Event, Life]] = {}
    for record in records:
        life = record.event
        if life is not None and (life.id not in last or last[life.id][1].revision <= life.revision):
            last[life.id] = record, life
    return list(last.values())


def _as_they_stand(records: Sequence[Event]) -> Iterable[dict[str, Any]]:
    return ({"index": record.index, **msgspec.to_builtins(life)} for record, life in newest(records))


def _where_something_is(records: Sequence[Record]) -> Iterable[dict[str, Any]]:
    """Outcomes that say something: what was skipped because there was nothing to say stays in the topic."""
    return (_row(r) for r in records if not r.ended and r.outcome != "skipped")


FILES = (
    File("events.json", "events", _as_they_stand),
    File("captions.jsonl", "captions", _as_they_are),
    File("detections.jsonl", "detections", _as_they_are),
    File("incidents.json", "incidents", _where_something_is),
    File("descriptions.json", "descriptions", _where_something_is),
    File("verdicts.json", "verdicts", _where_something_is),
)


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(record)
    return {name: value for name, value in row.items() if name not in CLOCKS}


def write(folder: Path, found: Mapping[str, Sequence[Record]], coverage: Sequence[dict[str, Any]]) -> None:
    """All files of one stream but its summary."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        if file.topic not in found:
            continue
        said = rows(file, found[file.topic])
        _replace(folder / file.name, _lines(said) if file.name.endswith(".jsonl") else _document(said))
    _replace(folder / "coverage.json", _document(coverage))


def rows(file: File, records: Sequence[Record]) -> list[dict[str, Any]]:
    """What a file says of these, in its order."""
    return sorted(file.rows(records), key=_place)


def _place(row: Mapping[str, Any]) -> tuple[int, str, str]:
    return row["index"], row.get("model") or row.get("service") or "", row["id"]


def covered(progress: Progress, source: Source, services: Iterable[str]) -> list[dict[str, Any]]:
    """Of every service that owes an answer: which time is done, failed, skipped, missing."""
    rows = []
    for service in sorted(services):
        account = progress.of(source, service)
        rows.append(
            {
                "stream": source.stream,
                "service": service,
                "root": account.root,
                "ended": account.complete(),
                "count": account.count,
                **{kind: account.times(kind).pairs() for kind in (*KINDS, "missing")},
            }
        )
    return rows


def spent(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Model → calls and tokens that results which landed have cost."""
    by_model: dict[str, dict[str, int]] = {}
    for record in records:
        if isinstance(record, Answer) and record.model is not None and record.tokens is not None:
            told = by_model.setdefault(
                record.model, {"answers": 0, "tokens_in": 0, "tokens_cached": 0, "tokens_out": 0}
            )
            told["answers"] += 1
            told["tokens_in"] += record.tokens.into
            told["tokens_cached"] += record.tokens.cached
            told["tokens_out"] += record.tokens.out
    return by_model


@dataclass(frozen=True, slots=True)
class Heard:
    """What had been accounted for of a stream at one moment."""

    complete: bool
    coverage: Sequence[dict[str, Any]]
    outcomes: Mapping[str, Mapping[str, float]]
    """Service → seconds of the stream by outcome."""

    @classmethod
    def of(cls, progress: Progress, source: Source) -> Heard:
        services = source.services
        accounts = {service: progress.of(source, service) for service in services}
        return cls(
            progress.complete(source, services),
            covered(progress, source, services),
            {s: {kind: round(a.seconds(kind), 3) for kind in (*KINDS, "missing")} for s, a in accounts.items()},
        )


class Unwritable(Fatal):
    """Results have landed, and their files cannot be written."""


class Files:
    """The output folder of one run. Streams are written in groups: reading a topic for one costs as much as for many."""

    def __init__(
        self,
        folder: Path,
        bus: Bus,
        progress: Progress,
        *,
        claims: Claims | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._bus, self._progress, self._claims, self._clock = folder, bus, progress, claims, clock
        self._waiting: list[Source] = []
        self._next_at = clock()
        self.written: set[str] = set()
        """Streams whose summary says complete."""

    async def due(self, complete: Sequence[Source]) -> None:
        """Streams that are complete now; they are written once enough time has gone since the last group."""
        self._waiting += complete
        if self._waiting and self._clock() >= self._next_at:
            await self.write(self._waiting)
            self._waiting = []

    async def write(self, sources: Sequence[Source]) -> None:
        """Results as they are, complete or not."""
        if not sources:
            return
        began = self._clock()
        heard = {s.stream: Heard.of(self._progress, s) for s in sources}  # before what it speaks of, which may grow
        found: dict[str, dict[str, dict[str, Record]]] = defaultdict(lambda: defaultdict(dict))
        for name, record in await Newcomers(self._bus, [f.topic for f in FILES], sources, claims=self._claims).come():
            found[record.stream][name][record.id] = record  # what a torn writer has said twice is there once
        for source in sources:
            of = {name: list(records.values()) for name, records in found[source.stream].items()}
            await asyncio.to_thread(self._write_one, source, heard[source.stream], of)
            if heard[source.stream].complete:
                self.written.add(source.stream)
        self._next_at = self._clock() + PATIENCE * (self._clock() - began)

    def _write_one(self, source: Source, heard: Heard, found: Mapping[str, list[Record]]) -> None:
        """In a thread, which has no business with what is heard meanwhile."""
        folder = self._folder / source.stream
        write(folder, {f.topic: found.get(f.topic, []) for f in FILES if _writes(source, f.topic)}, heard.coverage)
        said = {
            "stream": source.stream,
            "complete": heard.complete,
            "source": {"uri": source.uri, "digest": digest_of(source.uri)},
            "task": source.task,
            "streamproc": __version__,
            "models": spent(r for records in found.values() for r in records),
            "outcomes": heard.outcomes,
        }
        _replace(folder / SUMMARY, _document(said))

    def unreadable(self, stream: str, why: str, task: Task) -> None:
        """A stream of which nothing could be looked at."""
        folder = self._folder / stream
        folder.mkdir(parents=True, exist_ok=True)
        said = {"stream": stream, "complete": False, "error": why, "task": task.resolved(), "streamproc": __version__}
        _replace(folder / SUMMARY, _document(said))


PATIENCE = 10.0
"""Of the time goes at most a tenth into reading results again."""


def _writes(source: Source, name: str) -> bool:
    """Some service of the stream writes that topic."""
    return any(service.partition(".")[0] in topic(name).writers for service in source.services)


# summaries ----------------------------------------------------------------------------------------------------------


def check(folder: Path) -> None:
    """It can be written to, before anything is paid for."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise Misconfigured(f"--out {folder} cannot be written to: {e.strerror or e}") from e


def finished(folder: Path, wanted: Wanted) -> bool:
    """A run of the same file and task is complete there. Misconfigured where another's results lie. Reads the file: call it in a thread."""
    there = summary(folder / wanted.name)
    if there is None or "source" not in there:
        return False
    if there.get("task") != wanted.task.resolved():
        raise Misconfigured(
            f"{folder / wanted.name} holds the results of another task, or of other options; name another --out"
        )
    if wanted.live:
        return False
    if there["source"].get("digest") != digest_of(wanted.uri):
        raise Misconfigured(f"{folder / wanted.name} holds the results of another file; name another --out, or --name")
    return there.get("complete") is True


def summary(folder: Path) -> dict[str, Any] | None:
    """What the last run said of a stream; None where there was none."""
    try:
        found = json.loads((folder / SUMMARY).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise Misconfigured(f"{folder / SUMMARY} cannot be read: {e}. Is it another program's folder?") from e
    if not isinstance(found, dict) or "stream" not in found:
        raise Misconfigured(f"{folder / SUMMARY} is no summary of ours; name another folder with --out")
    return found


def digest_of(uri: str) -> str | None:
    """Of the bytes of the file, or files, that a source names; None where it names none. Blocking: call it in a thread."""
    paths = (
        [Path(half) for half in address.halves(uri)]
        if uri.startswith(address.STACK)
        else [Path(uri.removeprefix("file://"))]
    )
    digests = []
    for path in paths:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest())
    return "+".join(digests)


def _document(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _lines(rows: Iterable[Any]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _replace(path: Path, data: bytes) -> None:
    try:
        replace(path, data)
    except OSError as e:
        raise Unwritable(f"{path} cannot be written: {e.strerror or e}. The same command goes on once it can") from e


def replace(path: Path, data: bytes) -> None:
    """Whole or not at all, so that a kill leaves no half file that looks done. Each writer has a file of its own until then:
    of two at once that shared one, the first would move it away under the second, whole or not."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{PART}"):
        with suppress(OSError):  # gone meanwhile, or another user's: it is in nobody's way
            if time.time() - left.stat().st_mtime > DEAD_S:
                left.unlink()
