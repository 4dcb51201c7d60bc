"""`streamproc frames`: the frames that a rule chooses, as lines, as pictures, as digests. No bus, no model."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli import frame as out
from streamproc.cli.frame import JsonOption
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from fractions import Fraction

    from streamproc.video.choice import Rule
    from streamproc.video.listing import Listed


def register(app: typer.Typer) -> None:
    app.command(
        epilog="Example: streamproc frames match.mp4 --fps 1 --from 12:00 --to 12:30 --out pictures",
        short_help="Show which frames a sampling rule chooses from a file.",
    )(frames)


def frames(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A video file, or the address of one.", show_default=False)
    ],
    fps: Annotated[
        str | None, typer.Option(metavar="F", help="Samples a second: a number, or a fraction like 30000/1001.")
    ] = None,
    every: Annotated[int | None, typer.Option(metavar="N", help="Frames 1, 1+N, 1+2N … in shown order.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="T", help="Samples from this time on: seconds, or 12:34[.5].")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="T", help="Samples before this time.")] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write each frame there as a JPEG, upright.")
    ] = None,
    longest: Annotated[
        int | None, typer.Option(metavar="PX", help="With --out: make the longer side at most so many pixels.")
    ] = None,
    digest: Annotated[
        bool, typer.Option("--digest", help="Add the MD5 of each decoded frame, as ffmpeg -f framemd5 gives it.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Choose frames of a file: sample k of rate F is the first frame shown at or after k/F seconds.

    Times count from the first shown frame. The frames are those of a full decode, to the bit; only what is needed for
    them is decoded.
    """
    from streamproc.video import address
    from streamproc.video.listing import Listing, Wish
    from streamproc.video.look import Look
    from streamproc.video.sampling import Span

    span = Span(_time(from_) or _zero(), _time(to))
    look = Look(longest=longest)
    wish, place = Wish(_rule(fps, every), span, look if out_dir else None, digest), address.parse(file)
    if place.under:
        raise Misconfigured(f"'{file}' is a pair of videos; the frames of one file can be listed")
    if out_dir is not None:
        out_dir.mkdir(parents=True, exist_ok=True)

    async def work() -> None:
        from streamproc.video.workers import Workers

        async with Workers(os.cpu_count() or 1) as workers:
            listing = Listing(workers, place, wish)
            async with aclosing(listing.frames()) as listed:
                async for one in listed:
                    _show(one, out_dir, json=json)
            if listing.damage:
                out.say(f"{place.shown}: {listing.damage}; what could be read is above")

    out.run(work())


def _show(one: Listed, out_dir: Path | None, *, json: bool) -> None:
    line: dict[str, Any] = {
        "t": float(one.chosen.t),
        "frame": one.chosen.number,
        "pts": one.chosen.pts,
        "time_base": f"{one.time_base.numerator}/{one.time_base.denominator}",
        "time_s": float(one.chosen.time_s),
    }
    if out_dir is not None and one.jpeg:
        path = out_dir / f"{one.chosen.number:08}.jpg"
        path.write_bytes(one.jpeg.data)
        line["file"] = str(path)
    if one.md5:
        line["md5"] = one.md5
    if json:
        out.emit(line)
    else:
        out.line("  ".join(f"{key} {value}" for key, value in line.items() if key != "time_base"))


def _rule(fps: str | None, every: int | None) -> Rule:
    from streamproc.video.choice import Every, rate

    if (fps is None) == (every is None):
        raise Misconfigured("say which frames: either --fps F or --every N")
    return rate(fps) if fps is not None else Every(every or 0)


def _time(text: str | None) -> Fraction | None:
    from datetime import UTC, datetime
    from fractions import Fraction

    from streamproc.cli.times import parse

    return None if text is None else Fraction(parse(text, now=datetime.now(UTC)).in_stream(), 1000)


def _zero() -> Fraction:
    from fractions import Fraction

    return Fraction(0)
