"""coverage.json as `run --out` writes it: which time of a stream was looked at, by every service that owed an answer."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from streamproc.errors import Rejected
from streamproc.messages import Stretch
from streamproc.ranges import Ranges

FILE = "coverage.json"
_LATEST_MS = 1 << 53
WINDOWS = "decode"
"""Who numbers windows."""


class Covered(Struct, frozen=True):
    """One service on one stream, or on an hour of it."""

    stream: str
    service: str
    done: tuple[Stretch, ...]
    failed: tuple[Stretch, ...]
    skipped: tuple[Stretch, ...]
    missing: tuple[Stretch, ...]
    root: str | None = None
    """The service whose numbers it goes by, where that is told."""


def read(data: bytes, *, file: str) -> list[Covered]:
    """One record, or a list of them."""
    try:
        found = msgspec.json.decode(data, type=Covered | list[Covered])
    except (msgspec.DecodeError, RecursionError) as e:
        raise Rejected(f"{file}: {e}") from e
    records = found if isinstance(found, list) else [found]
    for record in records:
        for lo, hi in (*record.done, *record.failed, *record.skipped, *record.missing):
            if not 0 <= lo <= hi <= _LATEST_MS:
                raise Rejected(f"{file}: {record.service} has a stretch from {lo} to {hi} ms")
    return records


def looked_at(records: Iterable[Covered]) -> tuple[Ranges, Ranges]:
    """(covered, whole) in milliseconds: covered is what every service has done, whole what any of them speaks of.

    Of services that go by the numbers of events, as an ensemble does, nobody can say which time they looked at: what they
    say is left out.
    """
    done: dict[str, Ranges] = {}
    whole = Ranges()
    for record in records:
        if record.root not in (None, WINDOWS):  # told, and another
            continue
        mine = done.setdefault(record.service, Ranges())
        for lo, hi in record.done:
            mine.add(lo, hi)
            whole.add(lo, hi)
        for lo, hi in (*record.failed, *record.skipped, *record.missing):
            whole.add(lo, hi)
    covered = whole.copy()
    for mine in done.values():
        for lo, hi in whole:
            for a, b in mine.missing(lo, hi):
                covered.remove(a, b)
    return covered, whole
