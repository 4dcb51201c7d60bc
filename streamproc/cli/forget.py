"""`streamproc forget`: a service that will not come back, a model that is no longer asked, leaves nothing behind on the bus.

What it has found stays, and what it has accounted for. What goes is what was kept for its return: progress, state, and
on an embedded bus the records that it had not read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from streamproc.cli.frame import BusOption, JsonOption, emit, line, opened, run, say, settings
from streamproc.errors import Misconfigured, did_you_mean

if TYPE_CHECKING:
    from streamproc.bus.contract import Bus


def register(root: typer.Typer) -> None:
    root.command(epilog="Example: streamproc forget detect.llava-next-video-7b --dry-run")(forget)


def forget(
    services: Annotated[list[str], typer.Argument(metavar="SERVICE…", show_default=False)],
    bus: BusOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be forgotten, and forget nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Forget services that will not come back: their progress, their state, and what is kept until they have read it.

    Refused while somebody works in one. What a service has found stays. Should it come back all the same, it begins from
    the beginning, and asks its model again for whatever is still there.
    """
    told = settings(bus=bus)

    async def work() -> list[dict[str, object]]:
        async with opened(told) as log:
            there = await log.services()
            for name in services:
                if name not in there:
                    raise Misconfigured(f"no service '{name}' has worked here{did_you_mean(name, there)}")
            named = await _named(log)
            found = []
            for name in dict.fromkeys(services):
                if working := await log.members(name):
                    raise Misconfigured(f"{name} is at work ({', '.join(sorted(working))}): end it first")
                found.append({"service": name, "unread": await _unread(log, name), "named_by": named.get(name, [])})
            for one in () if dry_run else found:
                await log.forget(str(one["service"]))
            return found

    for one in run(work()):
        if json:
            emit({**one, "forgotten": not dry_run})
            continue
        line(f"{one['service']}  {'would be forgotten' if dry_run else 'forgotten'}, {one['unread']} records unread")
        if streams := one["named_by"]:
            assert isinstance(streams, list)
            say(f"{one['service']} is still to look at {', '.join(streams)}; others wait for it there")


async def _unread(log: Bus, service: str) -> int:
    """Records it has not done, of what it had begun to read; at most: compaction and commits leave holes."""
    progress = await log.progress(service)
    spans = await asyncio.gather(*(log.span(topic, p) for topic, p in progress))
    return sum(max(0, s.end - max(s.begin, base)) for s, base in zip(spans, progress.values(), strict=True))


async def _named(log: Bus) -> dict[str, list[str]]:
    """Service → streams that are not removed, whose task names it, and for which it is not through."""
    from streamproc.pipeline import streams
    from streamproc.pipeline.progress import followed

    if not {"sources", "coverage"} <= (await log.topics()).keys():
        return {}
    named: dict[str, list[str]] = {}
    async with followed(log) as progress:
        for stream, source in sorted((await streams.newest(log)).items()):
            for name in source.services if source.state != "removed" else ():
                if not progress.complete(source, [name]):
                    named.setdefault(name, []).append(stream)
    return named
