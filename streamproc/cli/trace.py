"""`streamproc trace`: why a moment of a stream became no alert, or of what it became one. Works from the topics alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli.frame import BusOption, JsonOption, emit, line, opened, plain, run, settings
from streamproc.cli.records import ENVELOPE, without_pictures
from streamproc.cli.times import Time, parse
from streamproc.errors import Misconfigured, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streamproc.bus.claims import Claims
    from streamproc.bus.contract import Bus
    from streamproc.messages import Source
    from streamproc.pipeline.trace import Moment
    from streamproc.pipeline.trace_find import Landed
    from streamproc.pipeline.trace_told import Decision, Told

LONGEST_TEXT = 600
"""Characters of a model's own text that people see; scripts get all."""
CALL = ("model", "prompt", "raw", "how", "context", "tokens", "seconds", "attempts")


def register(root: typer.Typer) -> None:
    root.command(epilog="Example: streamproc trace match1 12:34")(trace)


def trace(
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    time: Annotated[
        str,
        typer.Argument(
            metavar="TIME", help="Seconds or 12:34[.5] of a file; ISO 8601 or 20:45 of a feed; '1 - 12:34' of a game."
        ),
    ],
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Which service lost a moment first, and why; then all that was said of the windows around it."""
    told, asked = settings(bus=bus), parse(time, now=datetime.now())

    async def work() -> dict[str, Any]:
        from streamproc.pipeline import streams
        from streamproc.pipeline.trace import moment
        from streamproc.pipeline.trace_told import decisions
        from streamproc.pipeline.trace_told import told as sentence
        from streamproc.settings import open_claims

        claims = open_claims(told)
        async with opened(told) as log:
            source = _meant(stream, asked, await streams.newest(log))
            at_ms = await _in_stream(log, source, asked, claims)
            found = await moment(log, source, at_ms, claims=claims)
            return _document(found, sentence(found, asked.text), decisions(found))

    found = run(work())
    emit(found) if json else _show(found)


# what is meant ------------------------------------------------------------------------------------------------------


def _meant(stream: str, time: Time, there: Mapping[str, Source]) -> Source:
    """A game's halves are its streams 1_… and 2_…; either may be named, or the game."""
    if stream not in there and time.half:
        halves = [n for n in there if n.startswith(f"{stream}/") and _half(n) == time.half]
        if len(halves) == 1:
            return there[halves[0]]
    if stream not in there:
        raise Misconfigured(f"no stream '{stream}'{did_you_mean(stream, there)}")
    if time.half and _half(stream) not in (None, time.half):
        raise Misconfigured(f"'{time.text}' is of half {time.half}, and '{stream}' is the other")
    return there[stream]


def _half(stream: str) -> int | None:
    """Of a game, by the name of its file."""
    name = stream.rpartition("/")[2]
    return int(name[0]) if name[:2] in ("1_", "2_") else None


async def _in_stream(log: Bus, source: Source, time: Time, claims: Claims) -> int:
    """Milliseconds from the stream's beginning."""
    from streamproc.pipeline.trace_find import Finder

    if not source.live:
        return time.in_stream()
    wall, zero_ms = time.by_clock(), await Finder(log, source, claims).began_ms()
    if zero_ms is None:
        raise Misconfigured(f"feed '{source.stream}' has no window so far: nothing tells when its time began")
    at_ms = round(wall.timestamp() * 1000) - zero_ms
    if at_ms < 0:
        zero = datetime.fromtimestamp(zero_ms / 1000).astimezone()
        raise Misconfigured(f"feed '{source.stream}' began at {zero.isoformat(timespec='seconds')}, after {time.text}")
    return at_ms


# as a document ------------------------------------------------------------------------------------------------------


def _document(found: Moment, told: Told, decided: Iterable[Decision]) -> dict[str, Any]:
    """The whole answer as JSON has it. Pictures are left out: `topics tail windows` has them."""
    import msgspec

    from streamproc.pipeline.trace import AROUND

    begin, until = found.windows
    source, lives = found.source, found.lives()
    shown = {}
    for index in range(max(0, begin - AROUND), until + AROUND):
        if outcomes := [_outcome(found, s, landed) for s in _on_windows(source) if (landed := found.of(s, index))]:
            shown[index] = {"index": index, "shows_it": begin <= index < until, "outcomes": outcomes}
    numbers = {s.record.index for steps in lives.values() for s in steps} | _incidents(found)
    behind = [s for s in source.services if s not in (*_on_windows(source), "dedup")]
    return {
        "sentence": told.sentence,
        "lost_by": told.lost_by,
        "stream": source.stream,
        "generation": source.generation,
        "revision": source.revision,
        "time_ms": found.at_ms,
        "windows": list(shown.values()),
        "dedup": {
            "rule": (source.task.get("dedup") or {}).get("rule"),
            "decisions": msgspec.to_builtins(list(decided)),
            "events": [msgspec.to_builtins(steps[-1].record.event) for steps in lives.values()],
        },
        "behind": [
            _outcome(found, service, landed)
            for service in behind
            for landed in found.said.get(service, ())
            if landed.record.index in numbers and not landed.record.ended and landed.record.reason != "not-closed"
        ],
        "thresholds": (source.task.get("ensemble") or {}).get("thresholds") or {},
        "services": [
            {
                "service": service,
                "asked": standing.asked,
                "at_work": standing.at_work,
                "lag": standing.lag,
                "front_ms": standing.account.front_ms,
                "complete": standing.account.complete(),
            }
            for service, standing in found.standing.items()
        ],
    }


def _on_windows(source: Source) -> list[str]:
    """Services that say something of every window."""
    return [s for s in source.services if s.partition(".")[0] in ("decode", "context", "caption", "detect")]


def _incidents(found: Moment) -> set[int]:
    return {
        s.record.index
        for s in found.said.get(found.service("locate") or "", ())
        if not s.record.ended and s.record.start_ms <= found.at_ms < s.record.end_ms
    }


def _outcome(found: Moment, service: str, landed: Landed) -> dict[str, Any]:
    """One record: what it says, and when that landed."""
    from streamproc.messages import plain

    record = landed.record
    window = found.of("decode", record.index) if service != "decode" else None
    after_s = (landed.stored.time_ms - window.stored.time_ms) / 1000 if window else None
    rest = without_pictures({k: v for k, v in plain(record).items() if k not in ENVELOPE and k != "event"})
    if "frames" in rest:
        rest["frames"] = [frame["t_ms"] for frame in rest["frames"]]
        rest.pop("clips", None)
    shown = {
        "id": record.id,
        "service": service,
        "index": record.index,
        "start_ms": record.start_ms,
        "end_ms": record.end_ms,
        "outcome": record.outcome,
        "landed": datetime.fromtimestamp(landed.stored.time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        **({"after_s": after_s} if after_s is not None else {}),
        **({"until_index": record.until_index} if record.until_index is not None else {}),
        **rest,
    }
    return shown | ({"letter": found.letters[record.id]} if record.id in found.letters else {})


# for people ---------------------------------------------------------------------------------------------------------


def _show(found: dict[str, Any]) -> None:
    line(plain(found["sentence"], most=None))
    for window in found["windows"]:
        line(f"\nwindow {window['index']}{'' if window['shows_it'] else ', beside it'}")
        for said in window["outcomes"]:
            _show_outcome(said)
    if found["dedup"]["decisions"]:
        line(f"\ndedup, by rule {found['dedup']['rule']}")
    for decision in found["dedup"]["decisions"]:
        where = f" → {decision['event']}" if decision.get("event") else ""
        of = f"{plain(decision['label'])} of {decision['model']} in window {decision['index']}"
        line(f"  {of}{where}: {decision['decided']}")
    for event in found["dedup"]["events"]:
        votes = ", ".join(f"{v['model']}#{v['index']}" + _sure(v) for v in event["votes"])
        line(
            f"  {event['id']}  {plain(event['label'])}  {_span(event)}  {event['state']}{_sure(event)}  votes: {votes}"
        )
    if found["behind"]:
        line("\nbehind it")
    for said in found["behind"]:
        _show_outcome(said)
        if (needs := found["thresholds"].get(said.get("label"))) is not None and "confidence" in said:
            line(f"    confidence {said['confidence']}, threshold {needs}")
    line("")
    for standing in found["services"]:
        state = f"come to {standing['front_ms'] / 1000:g} s" if standing["asked"] else "not asked so far"
        state = "complete" if standing["complete"] else state
        at_work = "" if standing["complete"] or standing["at_work"] else ", nobody works in it"
        line(f"{standing['service']}: {state}, lag {standing['lag']}{at_work}")


def _show_outcome(said: dict[str, Any]) -> None:
    """A line for what it says, and one for the call where a model was asked."""
    import msgspec

    shown = (
        "id",
        "service",
        "index",
        "until_index",
        "start_ms",
        "end_ms",
        "outcome",
        "reason",
        "landed",
        "after_s",
        *CALL,
    )
    rest = {k: v for k, v in said.items() if k not in shown}
    reason = f" ({plain(said['reason'])})" if said.get("reason") else ""
    text = plain(msgspec.json.encode(rest).decode()) if rest else ""
    line(f"  {said['service']}  #{said['index']}  {_span(said)}  {said['outcome']}{reason}  {text}".rstrip())
    if said.get("raw") is not None:
        line(f"    said: {plain(said['raw'], most=LONGEST_TEXT)}")
    if said.get("model"):
        tokens, seconds = said.get("tokens") or {}, said.get("seconds") or {}
        call = [
            f"read: {said.get('how') or 'whole'}",
            f"prompt {said.get('prompt')}",
            f"attempt {said.get('attempts')}",
            f"{seconds.get('queued', 0):g} s queued, {seconds.get('served', 0):g} s served",
            f"{tokens.get('in', 0)} tokens in, {tokens.get('out', 0)} out",
            f"landed {said['landed']}" + (f", {said['after_s']:g} s after its window" if "after_s" in said else ""),
        ]
        if said.get("context"):
            call.append(f"context {said['context']}")
        line(f"    {'; '.join(call)}")


def _span(said: dict[str, Any]) -> str:
    from streamproc.cli.running import clock

    return f"{clock(said['start_ms'])}–{clock(said['end_ms'])}"


def _sure(said: dict[str, Any]) -> str:
    return f" {said['confidence']:g}" if said.get("confidence") is not None else ""
