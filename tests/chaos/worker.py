"""One process: both services, until SIGTERM drains it; then it says what it has counted. `python -m tests.chaos.worker BUS PORT NUMBER SESSION_S`."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys

from streamproc.errors import Unreachable
from streamproc.runner import Bounds, Service
from tests.chaos.endpoint import Caller
from tests.chaos.stages import DETECT, SUM, Detect, Sum, open_bus

CALLS = 32
UNREACHABLE = 4
"""Exit code where the bus could not be reached at the start: whoever runs us starts us again."""


async def main(where: str, port: int, number: int, session_s: float) -> None:
    caller = Caller(port, number)
    await caller.connect()
    bus = await open_bus(where, session_s=session_s)
    try:
        services = [
            Service(DETECT, Detect(caller), bus, bounds=Bounds(calls=CALLS)),
            Service(SUM, Sum(), bus, bounds=Bounds(calls=CALLS)),
        ]
        async with asyncio.TaskGroup() as tasks:
            for service in services:
                tasks.create_task(service.run())

            def drain() -> None:
                for service in services:
                    tasks.create_task(service.drain())

            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, drain)
        counts = [service.shared.counts for service in services]
        said = {name: sum(getattr(c, name) for c in counts) for name in ("handed_over", "cut", "fenced")}
        sys.stdout.write(json.dumps(said))
    finally:
        await bus.close()
        await caller.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s worker {sys.argv[3]}: %(name)s: %(message)s")
    try:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
    except* Unreachable as unreachable:
        logging.warning("%s", unreachable.exceptions[0])
        sys.exit(UNREACHABLE)
