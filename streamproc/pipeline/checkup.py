"""The hops of a deployment, looked at one by one: what is so, and what to do where it should not be.

Each look answers with findings and raises nothing that a broken hop may raise. Which bus and stores these are is the
caller's to say, endpoints are `checkup_models`'; nothing here changes what is there, but for one small payload in the store
for claim checks.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from streamproc import __version__
from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.errors import Retryable, StreamprocError, Unreachable
from streamproc.messages import Source
from streamproc.pipeline import standing, streams
from streamproc.pipeline.parts import DECODE
from streamproc.pipeline.progress import followed
from streamproc.topics import deployment, is_ours
from streamproc.video import address
from streamproc.video.keep import Keep
from streamproc.wire import Entry, Stored

Verdict = Literal["ok", "note", "failed", "unreachable"]

CLOCKS_DIFFER_S = 5.0
"""A Date header is cut to the second, and the answer is a while on its way."""
QUIET_S = 30.0
"""A camera that is away for a moment is back by then."""
LITTLE_BYTES = 2**30
"""Free on a disk; some hours of windows."""
PROOF = b"streamproc doctor"
EXTRAS = {"otel": "opentelemetry-sdk", "s3": "obstore", "plot": "matplotlib", "gpu": "vllm"}


class Finding(Struct, frozen=True, omit_defaults=True):
    """What one look at one hop has shown."""

    hop: str
    verdict: Verdict
    seen: str
    remedy: str | None = None


def of_error(hop: str, error: StreamprocError, *, remedy: str | None = None) -> Finding:
    """What an error says of a hop."""
    if isinstance(error, Unreachable):
        return Finding(hop, "unreachable", f"{error.hop}: {error.problem}", error.remedy)
    return Finding(hop, "unreachable" if isinstance(error, Retryable) else "failed", str(error), remedy)


# the bus ------------------------------------------------------------------------------------------------------------


async def topics(bus: Bus) -> list[Finding]:
    """All that a deployment has are there, with as many partitions."""
    there = await bus.topics()
    missing = [t.name for t in deployment() if t.name not in there]
    others = {name: count for name, count in there.items() if count != bus.partitions and is_ours(name)}
    found = []
    if missing:
        some = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        found.append(Finding("topics", "failed", f"{len(missing)} are missing: {some}", "streamproc topics create"))
    if others:
        said = ", ".join(f"{name} has {count}" for name, count in sorted(others.items())[:5])
        found.append(
            Finding(
                "topics",
                "failed",
                f"{said} partitions, and the deployment {bus.partitions}: a stream's records do not meet",
                "Make these topics anew, or begin another deployment with STREAMPROC_TOPIC_PREFIX",
            )
        )
    return found or [Finding("topics", "ok", f"{len(deployment())} topics of {bus.partitions} partitions")]


async def owing(bus: Bus, sources: Mapping[str, Source]) -> dict[str, list[str]]:
    """Service → streams it has not completed, of those that run."""
    if "coverage" not in await bus.topics():
        return {}
    async with followed(bus) as progress:
        found: dict[str, list[str]] = {}
        for source in sorted(sources.values(), key=lambda s: s.stream):
            for service in source.services if source.state == "active" else ():
                if not progress.of(source, service).complete():
                    found.setdefault(service, []).append(source.stream)
        return found


async def services(bus: Bus, owing: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Whoever has something left to do is at work, and holds all partitions."""
    if not owing:
        return [Finding("services", "ok", "every stream is complete, or there is none: nobody has to be at work")]
    found = []
    for service, named in owing.items():
        members = await bus.members(service)
        waiting = f"{named[0]} and {len(named) - 1} more" if len(named) > 1 else named[0]
        if not members:
            found.append(
                Finding(
                    f"service {service}",
                    "failed",
                    f"nobody works in it, and {waiting} waits for it",
                    f"streamproc up {service}",
                )
            )
            continue
        held = {p for mine in members.values() for p in mine}
        idle = [p for p in range(bus.partitions) if p not in held]
        if idle:
            some = ", ".join(map(str, idle[:8])) + (" …" if len(idle) > 8 else "")
            found.append(
                Finding(
                    f"service {service}",
                    "note",
                    f"partitions {some} are held by nobody just now",
                    "They are taken within a session; look again, then at the logs of " + ", ".join(sorted(members)),
                )
            )
            continue
        found.append(Finding(f"service {service}", "ok", f"{len(members)} at work, all partitions held"))
    return found


async def feeds(bus: Bus, sources: Mapping[str, Source], *, now: datetime) -> list[Finding]:
    """Pictures come from every feed that somebody decodes; nothing where there is none."""
    live = [s for s in sources.values() if s.live and s.state == "active"]
    if not live:
        return []
    async with followed(bus) as progress:
        decoded = [s for s in await standing.of(bus, progress, live, now=now) if s.owner is not None]
        silent = [(s, progress.of(s.source, DECODE).front_ms) for s in decoded if s.age_s is None or s.age_s > QUIET_S]
    found = []
    for one, front_ms in silent:
        seen = (
            "no picture among its last windows" if one.age_s is None else f"its last picture is {one.age_s:.0f} s old"
        )
        begins = one.age_s is None and front_ms < QUIET_S * 1000
        remedy = (
            f"Does {address.redact(one.source.uri)} answer, seen from {one.owner}? The log there says what it meets"
        )
        found.append(Finding(f"feed {one.source.stream}", "note" if begins else "failed", seen, remedy))
    if coming := len(decoded) - len(silent):
        found.append(Finding("feeds", "ok", f"pictures come from {coming} of {len(live)}"))
    return found


# clocks -------------------------------------------------------------------------------------------------------------


def apart(hop: str, date: str, now: datetime) -> Finding:
    """A Date header against our clock."""
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return Finding(hop, "note", f"its Date header is none: {date[:60]!r}")
    theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
    return by(hop, (theirs - now).total_seconds())


def by(hop: str, ahead_s: float) -> Finding:
    if abs(ahead_s) <= CLOCKS_DIFFER_S:
        return Finding(hop, "ok", "the same as ours")
    way = "ahead of" if ahead_s > 0 else "behind"
    return Finding(hop, "failed", f"{abs(ahead_s):.0f} s {way} ours", "Let both machines keep time by NTP")


async def bus_clock(bus: Bus) -> list[Finding]:
    """By the newest records of coverage and sources: what has landed cannot have landed later than now."""
    newest_ms = 0
    there = await bus.topics()
    for name in ("coverage", "sources"):
        for p in range(there.get(name, 0)):
            span = await bus.span(name, p)
            if span.end > span.begin:
                last = await bus.read(name, p, max(span.begin, span.end - 2), max_records=2, max_bytes=2**20)
                newest_ms = max([newest_ms, *(stored.time_ms for stored in last)])
    ahead_s = newest_ms / 1000 - time.time()
    if not newest_ms or ahead_s <= CLOCKS_DIFFER_S:
        return [Finding("clock of the bus", "ok", "nothing on it is later than now")]
    return [by("clock of the bus", ahead_s)]


# stores and disks ---------------------------------------------------------------------------------------------------


async def footage(sources: Mapping[str, Source], owing: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Files are where they were, and folders of recordings are there; of streams that somebody still has to look at. What
    is fetched over a network is not tried."""
    left = {stream for some in owing.values() for stream in some}
    found = []
    for source in (s for s in sources.values() if s.stream in left):
        gone = [path for path in _paths(source) if not await asyncio.to_thread(path.exists)]
        found += [
            Finding(
                f"footage of {source.stream}",
                "failed",
                f"{path} is not here",
                "Put it back, or run this where it is: on several machines it has the same path on all",
            )
            for path in gone
        ]
    return found or [Finding("footage", "ok", "every file and recording that is still needed is where its source says")]


_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")


def _paths(source: Source) -> list[Path]:
    """Where its pictures lie on a disk, if they do."""
    if source.live:
        keep = Keep.parse(source.footage).of(source) if source.footage else None
        return [keep.folder] if keep and not keep.bucket else []
    halves = address.halves(source.uri) if source.uri.startswith(address.STACK) else (source.uri,)
    plain = (half.removeprefix("file://") for half in halves)
    return [Path(half).expanduser() for half in plain if not _SCHEME.match(half)]


async def store(claims: Claims, where: str | None) -> list[Finding]:
    """A small payload goes in and comes out again; always the same, so it takes its place once."""
    if where is None:
        return [Finding("claim store", "ok", "none is set: what is larger than its topic allows is rejected")]
    entry = Entry("windows", 0, b"doctor", PROOF)
    remedy = f"Is {where} there for this process, to read and to write? (claims.store)"
    try:
        claimed = await claims.check_in(entry, 1)
        stored = Stored(claimed.topic, 0, claimed.key, claimed.value, claimed.headers, offset=0, time_ms=0)
        back = await claims.check_out(stored)
    except StreamprocError as e:
        return [of_error("claim store", e, remedy=remedy)]
    except OSError as e:
        return [Finding("claim store", "failed", f"{where}: {e.strerror or e}", remedy)]
    whole = back.value == PROOF
    return [
        Finding(
            "claim store", "ok" if whole else "failed", f"{where} keeps what it is given", None if whole else remedy
        )
    ]


def disk(paths: Mapping[str, Path]) -> list[Finding]:
    """Room where bytes go: what it is for → a path, there or not yet."""
    found = []
    for what, path in paths.items():
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        usage = shutil.disk_usage(there)
        seen = f"{usage.free / 2**30:.1f} GiB are free for {what}"
        if usage.free < LITTLE_BYTES:
            found.append(Finding(f"disk of {what}", "failed", seen, f"Make room on the disk of {there}"))
        else:
            found.append(Finding(f"disk of {what}", "ok", seen))
    return found


def local(store: str) -> Path | None:
    """The folder of a store, where it is one."""
    if store.startswith("file://"):
        return Path(unquote(urlsplit(store).path))
    return None if "://" in store else Path(store).expanduser()


def versions(needed: Mapping[str, str]) -> list[Finding]:
    """Ours and those of extras. `needed`: extra → the setting that asks for it."""
    found = []
    installed = []
    for extra, distribution in EXTRAS.items():
        try:
            installed.append(f"{distribution} {metadata.version(distribution)}")
        except metadata.PackageNotFoundError:
            if extra in needed:
                found.append(
                    Finding(
                        f"extra {extra}",
                        "failed",
                        f"{needed[extra]} needs {distribution}, which is not installed",
                        f"pip install 'streamproc[{extra}]'",
                    )
                )
    packages = [f"{name} {metadata.version(name)}" for name in ("av", "aiokafka", "openai")]
    said = ", ".join((f"streamproc {__version__}", *packages, *installed))
    return [Finding("versions", "ok", said), *found]


async def table(bus: Bus) -> dict[str, Source]:
    """The streams that there are; none on a bus without topics."""
    return await streams.newest(bus) if "sources" in await bus.topics() else {}
