"""`streamproc demo`: everything once, on a film with known events, with no model and nothing else to install."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli.frame import Code, JsonOption, emit, line, run, say, settings, table
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.settings import Settings
    from streamproc.video.sample import Known

FILM, BUS, RESULTS = Path("film.mp4"), Path("bus/streamproc.db"), Path("results")
WITHIN_MS = 1000
"""A cut has no length: what was found that near is of it."""


def register(root: typer.Typer) -> None:
    root.command(epilog="Example: streamproc demo")(demo)


def demo(
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Where the film, the bus and the results go; made anew each time."),
    ] = Path("streamproc-demo"),
    json: JsonOption = False,
) -> None:
    """Draw a film with known events, look at it with every stage, and score what was found. A minute at most."""
    began = time.monotonic()
    _anew(out)
    run(_draw(out / FILM))
    from streamproc.cli.run import Asked, process
    from streamproc.task import load

    def asked() -> tuple[Settings, Asked]:
        return settings(bus=f"embedded:{out / BUS}"), Asked(task=load("demo"), out=out / RESULTS, quiet=json)

    ended = run(process(asked, [str(out / FILM)], name="film", workers=os.cpu_count() or 1))
    if ended != Code.DONE:
        raise typer.Exit(ended)
    found = _judged(out / RESULTS / "film" / "events.json")
    found["seconds"] = round(time.monotonic() - began, 1)
    if json:
        emit(found)
    else:
        _show(found, out)
    if found["recall"] < 1 or found["precision"] < 1:
        raise typer.Exit(Code.FAILED)  # all of it can be measured in the pictures: something is broken


def _anew(out: Path) -> None:
    """Only what an earlier demo left is taken away."""
    if out.exists() and not out.is_dir():
        raise Misconfigured(f"--out {out} is no folder")
    out.mkdir(parents=True, exist_ok=True)
    for ours in (out / FILM, out / BUS.parent, out / RESULTS / "film"):
        if ours.is_dir():
            shutil.rmtree(ours)
        else:
            ours.unlink(missing_ok=True)
    (out / BUS).parent.mkdir()


async def _draw(film: Path) -> None:
    from streamproc.video import sample

    say(f"Drawing a film of {sample.SECONDS} s, in which {len(sample.EVENTS)} things happen: {film}")
    await asyncio.to_thread(sample.make, film)


def _judged(events: Path) -> dict[str, Any]:
    """What was found against what is known: spans of the same label that overlap are of each other, one to one."""
    import msgspec

    from streamproc.score.detection import overlaps
    from streamproc.score.spots import Stretches
    from streamproc.video.sample import EVENTS, LABELS

    def stretches(rows: list[tuple[str, float, float]]) -> Stretches:
        return Stretches.of((LABELS.index(label), round(a), round(b)) for label, a, b in rows)

    said = [(e["label"], e["start_ms"], e["end_ms"]) for e in msgspec.json.decode(events.read_bytes())]
    known = [(e.label, *_reach(e)) for e in EVENTS]
    both = overlaps(stretches(known), stretches(said))
    hits = len(both.iou)
    return {
        "known": [{"label": label, "start_ms": round(a), "end_ms": round(b)} for label, a, b in known],
        "found": [{"label": label, "start_ms": a, "end_ms": b} for label, a, b in said],
        "hits": hits,
        "precision": hits / len(said) if said else 0.0,
        "recall": hits / len(known),
        "iou": round(both.mean, 3),
    }


def _reach(event: Known) -> tuple[float, float]:
    return event.start_s * 1000 - WITHIN_MS, event.end_s * 1000 + WITHIN_MS


def _show(found: dict[str, Any], out: Path) -> None:
    from streamproc.cli.running import clock
    from streamproc.video.sample import EVENTS

    def at(known: Known) -> str:
        low, high = _reach(known)
        spans = [f for f in found["found"] if f["label"] == known.label and f["start_ms"] < high and f["end_ms"] > low]
        return ", ".join(f"{clock(s['start_ms'])}–{clock(s['end_ms'])}" for s in spans) or "not found"

    line("")
    table(
        ("in the film", "from", "to", "found at"),
        [(e.label, f"{e.start_s:g} s", f"{e.end_s:g} s", at(e)) for e in EVENTS],
    )
    line("")
    line(
        f"{found['hits']} of {len(EVENTS)} found, {len(found['found']) - found['hits']} made up, "
        f"overlap in time {found['iou']:.0%}, in {found['seconds']:.1f} s."
    )
    line(
        f"""
That was the built-in observer, which measures colour, motion and light, and is no AI. To go on:
  streamproc topics tail events --bus embedded:{out / BUS}        every step in the life of every event
  streamproc run YOUR.mp4 --set labels="red car, cyclist" --model caption=CARD@http://gpu:8000/v1 --model detect=CARD@…
  streamproc models list                                       the models there is a card of
  streamproc tasks list                                        what streams can be looked at for
Results lie in {out / RESULTS}/film"""
    )
