"""A folder of claim checks kept from growing: payloads that no record speaks of any more leave it, beside a process's work.

Every process with services does this, and one does it as well as many. A bucket is left to a rule of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time

from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.errors import StreamprocError
from streamproc.pipeline.reading import stored_in
from streamproc.topics import deployment

log = logging.getLogger(__name__)

FIRST_S, EVERY_S = 60.0, 3600.0
"""What is over within a minute has no time for it."""
APART_S = 24 * 3600.0
"""A payload is put before its record lands: by another clock, and long before where there is an outage between the two."""


async def sweeping(bus: Bus, claims: Claims) -> None:
    """On and on. What goes wrong is told, and tried again an hour later: nobody's work hangs on it."""
    wait_s = FIRST_S
    while True:
        await asyncio.sleep(wait_s)
        wait_s = EVERY_S
        try:
            swept = await sweep(bus, claims, now_s=time.time())
        except StreamprocError as e:
            log.warning("payloads of claim checks that nobody needs any more stay for now: %s", e)
        else:
            if swept:
                log.info("%d payloads of claim checks are gone, as is all that spoke of them", swept)


async def sweep(bus: Bus, claims: Claims, *, now_s: float) -> int:
    """How many payloads have gone: put before the longest retention of any topic, and before all that is still there."""
    retention_s = 3600 * max(topic.retention_hours for topic in deployment())
    oldest_s = min(now_s - retention_s, await _oldest_s(bus, now_s))
    return await claims.sweep(now_s - oldest_s + APART_S)


async def _oldest_s(bus: Bus, now_s: float) -> float:
    """When the oldest record landed that may be a claim. Retention holds what a service has yet to read, however old."""
    there, oldest_s = await bus.topics(), now_s
    for topic in deployment():
        for p in range(0 if topic.compacted else there.get(topic.name, 0)):
            begin, end = await bus.span(topic.name, p)
            async for stored in stored_in(bus, topic.name, p, begin, end, first=1):
                oldest_s = min(oldest_s, stored.time_ms / 1000)
                break
    return oldest_s
