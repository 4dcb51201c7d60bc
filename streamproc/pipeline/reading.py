"""One partition of a topic, record after record, for those who look at it and work in no service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from streamproc import wire
from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.errors import Expired, Rejected
from streamproc.topics import topic
from streamproc.wire import Stored

BATCH, BATCH_BYTES = 500, 4 * 2**20


async def stored_in(
    bus: Bus, name: str, partition: int, begin: int, end: int | None = None, *, first: int = BATCH
) -> AsyncIterator[Stored]:
    """[begin, end), or without an end all there is; what has expired is left out. `first`: so many are read to begin with,
    for whoever may need but few; batches grow."""
    at, batch = begin, first
    while end is None or at < end:
        try:
            some = await bus.read(name, partition, at, max_records=min(batch, BATCH), max_bytes=BATCH_BYTES)
        except Expired as e:
            at = e.begin  # what is left stands behind it
            continue
        if not some:
            return
        at, batch = some[-1].offset + 1, 2 * batch
        for stored in some:
            if end is not None and stored.offset >= end:
                return
            yield stored


async def record_of(stored: Stored, claims: Claims | None) -> Any | None:
    """What it says. None for what is no record of its topic, or a claim whose payload is gone: `topics tail` shows it, with
    the reason."""
    try:
        return wire.decode(topic(stored.topic), await claims.check_out(stored) if claims else stored)
    except Rejected:
        return None
