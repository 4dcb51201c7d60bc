"""`streamproc diff`: what one run found and another did not. First the sums, then every difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli.frame import BusOption, JsonOption, emit, line, opened, plain, run, say, settings, table
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.pipeline.diff import Diff, Item
    from streamproc.pipeline.diff_score import Change

TOPICS = ("events", "verdicts", "incidents", "captions")


def register(root: typer.Typer) -> None:
    root.command(epilog="Example: streamproc diff match1 match1@trial --labels labels/")(diff)


def diff(
    first: Annotated[str, typer.Argument(metavar="STREAM", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="STREAM", show_default=False)],
    within: Annotated[
        float, typer.Option("--within", metavar="S", min=0, help="How far apart both may tell of one event.")
    ] = 5.0,
    same: Annotated[
        float, typer.Option("--same", metavar="S", min=0, help="How far apart it has not moved, and is one moment.")
    ] = 1.0,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE|DIR", help="What is true: how each score changes, with its interval."),
    ] = None,
    draws: Annotated[int, typer.Option("--draws", min=0, max=100_000, help="For the intervals; 0: none.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0)] = 0,
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Compare what two streams found over the time that both have looked at: by both, by one, moved, relabelled, text changed."""
    from streamproc.formats.problems import Problems
    from streamproc.pipeline import diff as compared
    from streamproc.pipeline.diff_score import labels as read
    from streamproc.pipeline.diff_score import scored
    from streamproc.pipeline.exporting import chosen, landed
    from streamproc.pipeline.progress import followed
    from streamproc.settings import open_claims

    if first == second:
        raise Misconfigured(f"'{first}' and '{second}' are one stream")
    told, problems = settings(bus=bus), Problems()
    truth = read(labels, first, problems) if labels is not None else None

    async def work() -> tuple[Diff, list[Change]]:
        async with opened(told) as log, followed(log) as progress:
            sources = await chosen(log, [first, second])
            one, other = await landed(log, progress, sources, TOPICS, claims=open_claims(told))
            within_ms = round(1000 * within)
            found = compared.diff(one, other, progress, within_ms=within_ms, same_ms=round(1000 * same))
        if truth is None:
            return found, []
        left, right = ([i for r in found.rows if (i := r.first)], [i for r in found.rows if (i := r.second)])
        return found, scored(truth, left, right, found.common, within_ms=within_ms, draws=draws, seed=seed)

    found, scores = run(work())
    for said in problems.lines():
        say(said)
    if json:
        emit(_document(first, second, found, scores))
    else:
        _show(first, second, found, scores)


def _document(first: str, second: str, found: Diff, scores: list[Change]) -> dict[str, Any]:
    return {
        "first": first,
        "second": second,
        "common_ms": found.common.pairs(),
        "outside": list(found.outside),
        "sums": found.sums(),
        "captions": {"both": found.captions[0], "changed": found.captions[1]},
        "rows": [
            {"kind": r.kind, "text_changed": r.text_changed, "first": _plain(r.first), "second": _plain(r.second)}
            for r in found.rows
        ],
        "scores": [
            {
                "name": s.name,
                "first": s.first,
                "second": s.second,
                "difference": s.difference,
                "interval": [s.interval.low, s.interval.high] if s.interval else None,
                "p": s.p,
            }
            for s in scores
        ],
    }


def _plain(item: Item | None) -> dict[str, Any] | None:
    if item is None:
        return None
    return {name: getattr(item, name) for name in ("id", "label", "team", "time_ms", "text", "confidence")}


def _show(first: str, second: str, found: Diff, scores: list[Change]) -> None:
    from streamproc.cli.running import clock

    sums = found.sums()
    looked = sum(hi - lo for lo, hi in found.common)
    line(f"{first} and {second} have both looked at {clock(looked)}" + ("" if looked else ": nothing can be compared"))
    told = {
        "found by both": sums["same"] + sums["moved"],
        "of these moved": sums["moved"],
        "relabelled": sums["relabelled"],
        "text changed": sums["text changed"],
        f"only in {first}": sums["only in the first"],
        f"only in {second}": sums["only in the second"],
    }
    if found.captions[0]:
        told[f"captions changed, of {found.captions[0]}"] = found.captions[1]
    for name, count in zip((f"outside, in {first}", f"outside, in {second}"), found.outside, strict=True):
        if count:
            told[name] = count
    for what, count in told.items():
        line(f"  {count:>6,}  {what}")
    if scores:
        line("")
        table(
            ("score", first, second, "change", "95 % of draws", "p"),
            [
                (
                    s.name,
                    f"{s.first:.3f}",
                    f"{s.second:.3f}",
                    f"{s.difference:+.3f}",
                    f"{s.interval.low:+.3f} to {s.interval.high:+.3f}" if s.interval else "",
                    "" if s.p is None else f"{s.p:.3f}",
                )
                for s in scores
            ],
        )
    shown = [r for r in found.rows if r.kind != "same" or r.text_changed]
    if not shown:
        return
    line("")
    rows = []
    for row in shown:
        kind = "text changed" if row.kind == "same" else row.kind
        rows.append((kind, _at(row.first), _at(row.second), *_texts(row.first, row.second)))
    table(("what", first, second, f"text in {first}", f"text in {second}"), rows)


def _at(item: Item | None) -> str:
    from streamproc.cli.running import clock

    if item is None:
        return ""
    team = f" ({item.team})" if item.team else ""
    return f"{clock(item.time_ms)} {item.label}{team}"


def _texts(first: Item | None, second: Item | None) -> tuple[str, str]:
    """Only where they differ."""
    one, other = ((i.text or "") if i else "" for i in (first, second))
    return ("", "") if one == other or not (first and second) else (plain(one), plain(other))
