"""`streamproc coverage`: which time of a stream every service has accounted for, and which it has not."""

from __future__ import annotations

from typing import Annotated

import typer

from streamproc.cli.frame import BusOption, Code, JsonOption, emit, line, opened, run, settings, table
from streamproc.errors import Misconfigured, did_you_mean

SHOWN = 20
"""Stretches of one kind that people see; scripts get all."""


def register(root: typer.Typer) -> None:
    root.command(epilog="Example: streamproc coverage match1")(coverage)


def coverage(
    stream: Annotated[str, typer.Argument(metavar="STREAM")], bus: BusOption = None, json: JsonOption = False
) -> None:
    """What is done, failed, skipped and missing of a stream, in every service. Exit code 3 where anything is missing or failed."""
    from streamproc.cli.running import clock
    from streamproc.pipeline import streams
    from streamproc.pipeline.outputs import covered
    from streamproc.pipeline.progress import KINDS, followed

    told, kinds = settings(bus=bus), (*KINDS, "missing")

    async def work() -> Code:
        async with opened(told) as log, followed(log) as progress:
            there = await streams.newest(log)
            if (source := there.get(stream)) is None:
                raise Misconfigured(f"no stream '{stream}'{did_you_mean(stream, there)}")
            rows = covered(progress, source, source.services)
            at_work = {service for service in source.services if await log.members(service)}
        if json:
            emit(rows)
        else:
            _show(rows, at_work)
        whole = all(row["ended"] and not row["failed"] and not row["missing"] for row in rows)
        return Code.DONE if whole else Code.INCOMPLETE

    def _state(row: dict[str, object], at_work: set[str]) -> str:
        if row["ended"]:
            return "yes"
        began = row["service"] in at_work or any(row[kind] for kind in kinds)
        return "" if began else "not asked so far"

    def _show(rows: list[dict[str, object]], at_work: set[str]) -> None:
        sums = [[f"{sum(b - a for a, b in row[kind]) / 1000:.1f}" for kind in kinds] for row in rows]  # type: ignore[attr-defined]  # pairs, by `covered`
        head = ("service", *(f"{kind} s" for kind in kinds), "complete")
        table(head, [(row["service"], *told, _state(row, at_work)) for row, told in zip(rows, sums, strict=True)])
        for row in rows:
            for kind in ("failed", "skipped", "missing"):
                pairs: list[tuple[int, int]] = row[kind]  # type: ignore[assignment]  # by `covered`
                if pairs:
                    said = ", ".join(f"{clock(a)}–{clock(b)}" for a, b in pairs[:SHOWN])
                    more = f", and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
                    line(f"\n{row['service']} {kind}: {said}{more}")

    raise typer.Exit(run(work()))
