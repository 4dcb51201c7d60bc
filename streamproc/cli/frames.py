"""`streamproc frames`: the frames that a rule chooses, as lines, as pictures, as digests. No bus, no model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli import frame as out
from streamproc.cli.frame import JsonOption
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from fractions import Fraction

    from streamproc.video.choice import Rule


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
    from streamproc.video import address, sampling
    from streamproc.video.container import Limits, opened
    from streamproc.video.picture import Look, Painter
    from streamproc.video.picture import digest as md5

    rule = _rule(fps, every)
    span = sampling.Span(_time(from_) or _zero(), _time(to))
    look = Look(longest=longest)
    if out_dir is not None:
        out_dir.mkdir(parents=True, exist_ok=True)
    with opened(address.parse(file), Limits()) as video:
        painter = Painter(look, video.stream.sample_aspect_ratio)
        for chosen, frame in sampling.samples(video, rule, span):
            line: dict[str, Any] = {
                "t": float(chosen.t),
                "frame": chosen.number,
                "pts": chosen.pts,
                "time_base": f"{video.time_base.numerator}/{video.time_base.denominator}",
                "time_s": float(chosen.time_s),
            }
            if out_dir is not None:
                path = out_dir / f"{chosen.number:08}.jpg"
                path.write_bytes(painter.jpeg(frame).data)
                line["file"] = str(path)
            if digest:
                line["md5"] = md5(frame)
            if json:
                out.emit(line)
            else:
                out.line("  ".join(f"{key} {value}" for key, value in line.items() if key != "time_base"))
        if video.damage:
            out.say(f"{video.address.shown}: {video.damage}; what could be read is above")


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
