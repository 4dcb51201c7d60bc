"""`streamproc doctor`: every hop tested, the failing one named, with what to do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli.frame import BusOption, Code, JsonOption, emit, line, opened, plain, run, settings, table
from streamproc.errors import Fatal, Misconfigured, Retryable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streamproc.messages import Source
    from streamproc.models.card import Served
    from streamproc.pipeline.checkup import Finding
    from streamproc.settings import Settings


def register(root: typer.Typer) -> None:
    root.command(epilog="Example: streamproc doctor --bus kafka://kafka:9092 --deep")(doctor)


def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Ask each endpoint all that it may honour: some forty short calls.")
    ] = False,
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Test every hop from here: settings, bus, topics, services, feeds, endpoints, stores, disk, clocks, versions.

    Exit code 0 where all is well, 4 where something does not answer, 1 where something else is wrong.
    """
    found = run(_looked_at(bus, deep=deep))
    if json:
        emit({"ok": all(f.verdict in ("ok", "note") for f in found), "hops": found})
    else:
        _show(found)
    verdicts = {f.verdict for f in found}
    raise typer.Exit(
        Code.UNREACHABLE if "unreachable" in verdicts else Code.FAILED if "failed" in verdicts else Code.DONE
    )


async def _looked_at(bus: str | None, *, deep: bool) -> list[Finding]:
    from streamproc.pipeline import checkup
    from streamproc.pipeline.checkup import Finding

    try:
        told = settings(bus=bus)
    except Misconfigured as e:
        return [Finding("settings", "failed", str(e), "Correct it in streamproc.toml, the environment or the option")]
    found = [Finding("settings", "ok", f"bus {told.bus}")]
    on_bus, sources, owing = await _on_bus(told)
    found += on_bus
    found += await _endpoints(told, sources, deep=deep)
    if all(f.verdict in ("ok", "note") for f in on_bus if f.hop == "bus"):
        found += await checkup.footage(sources, owing)
    found += await _stores(told)
    return found + checkup.versions(_needed(told))


async def _on_bus(told: Settings) -> tuple[list[Finding], dict[str, Source], dict[str, list[str]]]:
    """Findings, streams, and who has to do what for them still."""
    from streamproc.pipeline import checkup
    from streamproc.pipeline.checkup import Finding

    try:
        async with opened(told) as log:
            found = [Finding("bus", "ok", f"{told.bus} answers")]
            sources = await checkup.table(log)
            found += await checkup.topics(log)
            owing = await checkup.owing(log, sources)
            found += await checkup.services(log, owing)
            found += await checkup.feeds(log, sources, now=datetime.now(UTC))
            return found + await checkup.bus_clock(log), sources, owing
    except (Retryable, Fatal) as e:
        return [checkup.of_error("bus", e, remedy="Is it another program's, or of another version?")], {}, {}


async def _endpoints(told: Settings, sources: Mapping[str, Source], *, deep: bool) -> list[Finding]:
    from streamproc.cli.endpoints import environ
    from streamproc.pipeline.checkup_models import speaks

    served, unknown = known(told, sources)
    found = unknown + await speaks(served, environ(told))
    silent = {f.hop for f in found if f.verdict != "ok"}
    if deep:
        for one in served:
            if one.urls and not any(hop.startswith(f"endpoint {one.name} ") for hop in silent):
                found += await _honoured(one, environ(told))
    return found


async def _honoured(one: Served, environ: Mapping[str, str]) -> list[Finding]:
    from secrets import token_hex

    from streamproc.models.probe import check
    from streamproc.pipeline import checkup
    from streamproc.pipeline.checkup import Finding

    try:
        probed = await check(one, environ=environ, fresh=token_hex(4))
    except (Retryable, Fatal) as e:
        return [checkup.of_error(f"endpoint {one.name}", e)]
    return [
        Finding(f"{one.name} at {url}: {f.ability}", "ok" if f.verdict == "yes" else "note", f.seen, f.write)
        for url, said in probed.items()
        for f in said
    ]


def known(told: Settings, sources: Mapping[str, Source]) -> tuple[list[Served], list[Finding]]:
    """Endpoints of the settings, and those that streams name; models that are not known here belong to other processes, and
    one that nobody here gave a URL may be served anywhere: who is asked was named."""
    from streamproc.cli.endpoints import served_as
    from streamproc.models.card import LOCAL
    from streamproc.pipeline.checkup import Finding
    from streamproc.pipeline.parts import plan_of

    names = dict.fromkeys(told.endpoints)
    for service in dict.fromkeys(s for source in sources.values() for s in source.services if source.state == "active"):
        if model := plan_of(service).model:
            names.setdefault(model)
    served, unknown = list[Any](), list[Any]()
    for name in names:
        remedy = f"Say [endpoints.{name}] where it is served"
        try:
            one = served_as(told, name)
        except Misconfigured as e:
            unknown.append(Finding(f"endpoint {name}", "note", str(e), remedy))
            continue
        if name in told.endpoints or told.openai.base_url or one.card.url or not one.urls:
            served.append(one)
        else:
            seen = f"no URL is named for it here; {LOCAL}, where its card looks then, was not asked"
            unknown.append(Finding(f"endpoint {name}", "note", seen, remedy))
    return served, unknown


async def _stores(told: Settings) -> list[Finding]:
    from streamproc.pipeline import checkup
    from streamproc.pipeline.checkup import Finding
    from streamproc.settings import EmbeddedAt, open_claims, parse_bus

    places = {"work here": Path()}
    if isinstance(at := parse_bus(told.bus), EmbeddedAt):
        places = {"the bus": at.path}
    if told.claims.store and (folder := checkup.local(told.claims.store)):
        places["claim checks"] = folder
    try:
        found = await checkup.store(open_claims(told), told.claims.store)
    except Misconfigured as e:
        found = [Finding("claim store", "failed", str(e), "Correct the setting claims.store")]
    return found + checkup.disk(places)


def _needed(told: Settings) -> dict[str, str]:
    """Extra → the setting that asks for it."""
    needed = {"otel": "otel.endpoint"} if told.otel.endpoint else {}
    return needed | ({"s3": "claims.store"} if (told.claims.store or "").startswith("s3://") else {})


def _show(found: Iterable[Finding]) -> None:
    """All hops, and the failing ones once more at the end, with what to do."""
    found = list(found)
    table(["", "hop", "seen"], [[f.verdict, f.hop, f.seen] for f in found])
    line("")
    bad = [f for f in found if f.verdict in ("failed", "unreachable")]
    for one in bad:
        line(plain(f"{one.hop}: {one.seen}", most=None) + (f". {one.remedy}" if one.remedy else ""))
    if not bad:
        line("all is well")
