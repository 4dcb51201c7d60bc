"""`score still`: where nothing moves, out of videos or out of the windows of a bus, for `score overdetection --still`.

Two pictures that follow each other are compared as small as the observer measures them. Time that no pair of pictures
spans, as in a gap, is not still: nobody looked.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streamproc.cli import frame
from streamproc.cli.frame import BusOption, JsonOption, opened, settings
from streamproc.cli.scoring import report
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.models.observer.pictures import Picture
    from streamproc.ranges import Ranges
    from streamproc.settings import Settings
    from streamproc.video.sources import Found

SMALL = 256
"""Pixels of the longer side of what is compared."""


def register(app: typer.Typer) -> None:
    app.command("still", epilog="Example: streamproc score still matches --out still.json")(still)


def still(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE|STREAM…", help="Videos or folders of them; what is neither is a stream of the bus."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="F", help='JSON {"STREAM": [[start_ms, end_ms], …]}.')],
    fps: Annotated[str, typer.Option(metavar="F", help="Pictures a second that are compared; of videos.")] = "2",
    moved: Annotated[
        float, typer.Option("--moved", metavar="X", min=0, max=1, help="Still: no larger share of the pixels changes.")
    ] = 0.005,
    least: Annotated[
        float, typer.Option("--least", metavar="S", min=0, help="Shorter stretches are left out, in seconds.")
    ] = 2.0,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stretches in which nothing moves: whatever a model says to have happened there, it made up."""
    report.writable(out)
    from streamproc.video import sources
    from streamproc.video.choice import rate

    files = [name for name in given if Path(name).exists() or "://" in name]
    streams = [name for name in given if name not in files]
    rule, videos = rate(fps), sources.found(files, say=frame.say)
    if live := [one.name for one in videos if one.live]:
        raise Misconfigured(f"'{live[0]}' is a feed, which does not end; name its stream on the bus once it has run")
    found: dict[str, Ranges] = {}

    async def work() -> None:
        if videos:
            found.update(await _in_videos(videos, rule.per_s, at_most=moved))
        if streams:
            found.update(await _in_windows(settings(bus=bus), streams, at_most=moved))

    frame.run(work())
    kept = {
        stream: [(lo, hi) for lo, hi in stretches if hi - lo >= 1000 * least] for stream, stretches in found.items()
    }
    out.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")
    if as_json:
        frame.emit(kept)
    else:
        rows = [
            [stream, len(pairs), f"{sum(hi - lo for lo, hi in pairs) / 1000:.1f}"] for stream, pairs in kept.items()
        ]
        frame.table(["stream", "still stretches", "seconds"], rows)


async def _in_videos(videos: Sequence[Found], per_s: Fraction, *, at_most: float) -> dict[str, Ranges]:
    from streamproc.models.observer.pictures import measure
    from streamproc.ranges import Ranges
    from streamproc.video import address
    from streamproc.video.choice import Rate
    from streamproc.video.listing import Listing, Wish
    from streamproc.video.look import Look
    from streamproc.video.workers import Workers

    found = {}
    async with Workers(os.cpu_count() or 1) as workers:
        for one in videos:
            stretches, before = Ranges(), None
            listing = Listing(workers, address.parse(one.uri), Wish(Rate(per_s), look=Look(longest=SMALL)))
            async with aclosing(listing.frames()) as listed:
                async for this in listed:
                    if this.jpeg is None:
                        continue
                    now = round(1000 * this.chosen.time_s), measure(this.jpeg.data)
                    if before is not None:
                        _add(stretches, [before, now], at_most=at_most)
                    before = now
            if listing.damage:
                frame.say(f"{one.name}: {listing.damage}; what could be read was looked at")
            found[one.name] = stretches
    return found


async def _in_windows(told: Settings, streams: Sequence[str], *, at_most: float) -> dict[str, Ranges]:
    from streamproc.models.observer.pictures import measure
    from streamproc.ranges import Ranges

    found = {}
    for stream in streams:
        stretches, seen = Ranges(), False
        async with aclosing(_windows(told, stream)) as windows:
            async for pictures in windows:
                seen = True
                _add(stretches, [(t_ms, measure(jpeg)) for t_ms, jpeg in pictures], at_most=at_most)
        if not seen:
            raise Misconfigured(f"'{stream}': no such file or folder, and no stream with windows on the bus")
        found[stream] = stretches
    return found


async def _windows(told: Settings, stream: str) -> AsyncGenerator[list[tuple[int, bytes]]]:
    """The pictures of each window that has any."""
    from streamproc.cli.records import Wanted, records
    from streamproc.pipeline.reading import record_of
    from streamproc.settings import open_claims
    from streamproc.topics import partition_of, topic

    claims, of = open_claims(told), topic("windows")
    async with opened(told) as bus:
        count = (await bus.topics()).get(of.name, 0)
        parts = [partition_of(stream, count)] if count else []
        wanted = Wanted(stream, None, None)
        async for stored in records(bus, of, parts, wanted, last=None, follow=False):
            if stored.key.decode(errors="replace") == stream and stored.value is not None:
                window = await record_of(stored, claims)
                if window and window.frames:
                    yield [(one.t_ms, one.jpeg) for one in window.frames]


def _add(stretches: Ranges, pictures: Sequence[tuple[int, Picture]], *, at_most: float) -> None:
    from streamproc.models.observer.pictures import compare
    from streamproc.score import overdetection

    motion = compare([picture for _, picture in pictures]).motion
    for lo, hi in overdetection.still([t_ms for t_ms, _ in pictures], motion, at_most=at_most):
        stretches.add(lo, hi)
