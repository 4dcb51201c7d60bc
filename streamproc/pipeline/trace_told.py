"""What a moment comes to: the first service that lost it and why, and how each report of it became an event, or did not.

A moment passes from service to service: a window shows it, a model sees it, dedup makes an event of it, ensemble believes
it. Whoever of these says that it failed, that there was nothing to be seen, that it is not to be believed, or has not come
so far, has lost it. Several models look at once, so they have lost it only together. Who was never asked, as after a run of
only some stages, has lost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from streamproc.messages import Caption, Detection, Incident, Life, Record, Sighting, Verdict, Vote
from streamproc.pipeline.parts import DECODE
from streamproc.pipeline.trace import Moment
from streamproc.pipeline.trace_find import Landed
from streamproc.stages.ensemble.stage import BELOW, TOO_FEW, judged

WORST_FIRST = ("failed", "waits", "expired", "skipped", "nothing", "unasked")
"""Of several models that all lost it the first is named by this."""


class Told(Struct, frozen=True):
    """The answer. `lost_by`: None where nothing was lost."""

    sentence: str
    lost_by: str | None = None


class Decision(Struct, frozen=True, omit_defaults=True):
    """What dedup did with one report of a model."""

    model: str
    index: int
    label: str
    event: str | None
    decided: str


class _Lost(Struct, frozen=True):
    how: str
    why: str

    def by(self, service: str, *, though: str = "", beside: str = "") -> Told:
        """`though`: what had been made of it before."""
        if self.how == "unasked":
            return Told("; ".join(filter(None, ("nothing lost it so far", though, f"{service}: {self.why}"))) + beside)
        return Told(f"{service} lost it{though and f', though {though}'}: {self.why}{beside}", service)


def told(moment: Moment, clock: str) -> Told:
    """`clock`: the time as people write it."""
    source = moment.source
    if (ended := moment.ended()) is not None and moment.at_ms >= ended.end_ms:
        return Told(f"{source.stream} is over by {clock}: it ends at {ended.end_ms / 1000:g} s", DECODE)
    decoded = DECODE in source.services or DECODE in moment.said  # results that were imported, or said again, have none
    if decoded and (lost := _of_one(moment, DECODE)):
        return lost.by(DECODE)
    judges = judged(source)
    if judges in source.services and judges != "dedup":
        return _by_incidents(moment, judges)
    detectors = _of(source.services, "detect.")
    return _by_events(moment, detectors) if detectors or moment.service("dedup") else _by_captions(moment)


# each on its own ----------------------------------------------------------------------------------------------------


def _of_one(moment: Moment, service: str) -> _Lost | None:
    """Why a service that answers windows has lost it; None where it saw something in any of them."""
    here = moment.here(service)
    records = [landed.record for landed in here if landed is not None]
    if any(r.outcome == "done" and _saw(r) for r in records):
        return None
    if failed := [r for r in records if r.outcome == "failed"]:
        return _Lost("failed", f"it failed: {failed[0].reason or 'no reason was given'}{_letter(moment, failed[0])}")
    if any(landed is None for landed in here):
        return _silent(moment, service)
    if skipped := [r for r in records if r.outcome == "skipped"]:
        return _Lost("skipped", f"it was skipped: {skipped[0].reason or 'no reason was given'}")
    texts = list(dict.fromkeys(r.raw.strip()[:80] for r in records if getattr(r, "raw", None)))
    said = f"; it answered {' and '.join(repr(t) for t in texts)}" if texts else ""
    return _Lost("nothing", f"it looked and saw nothing{said}")


def _saw(record: Record) -> bool:
    return bool(record.events) if isinstance(record, Detection) else True


def _silent(moment: Moment, service: str) -> _Lost:
    """It said nothing that can be read: it has not come so far, or what it said is gone."""
    standing, begin = moment.standing.get(service), moment.windows[0]
    if standing is None:
        return _Lost("waits", f"{moment.source.stream} has no such service")
    if standing.account.numbers.has(begin, begin + 1):
        if service == DECODE and any(moment.of(s, begin) for s in moment.said if s.startswith(("detect.", "caption."))):
            return _Lost("expired", "its windows have expired from the topic")
        return _Lost("expired", "it is accounted for, and what was said of it has expired from the topic")
    if not standing.asked:
        return _Lost("unasked", "it was not asked so far, and nobody works in it")
    behind = f", {standing.lag} records before it" if standing.lag else ""
    absent = "" if standing.at_work else ", and nobody works in it"
    return _Lost(
        "waits", f"it has not come so far (it stands at {standing.account.front_ms / 1000:g} s{behind}){absent}"
    )


def _letter(moment: Moment, record: Record) -> str:
    return f" (streamproc dlq show {record.id})" if record.id in moment.letters else ""


def _of(services: Sequence[str], prefix: str) -> list[str]:
    return [s for s in services if s.startswith(prefix)]


# the flow -----------------------------------------------------------------------------------------------------------


def _by_events(moment: Moment, detectors: Sequence[str]) -> Told:
    if told := _by_lookers(moment, detectors):
        if told.lost_by is None:  # no detector was asked so far; those who look beside them may have failed
            others = _of(moment.source.services, "caption.")
            told = _by_lookers(moment, [*others, *detectors]) or Told(f"{told.sentence}; {_seen(moment, others)}")
        spans = {n: steps for n, steps in moment.spanning().items() if n not in moment.lives()}
        return Told(f"{told.sentence}; yet there is {_events(spans)} over it", told.lost_by) if spans else told
    if "dedup" not in moment.source.services:
        return Told(f"nothing lost it: {_seen(moment, detectors)}")
    lives = moment.lives()
    if not lives:
        if not detectors:  # its events were said again from somewhere else
            return Told(f"no event of {moment.source.stream} lies there", "dedup")
        return _of_fold(moment, "dedup").by("dedup", though=_seen(moment, detectors))
    if moment.service("ensemble") is None:
        return Told(f"nothing lost it: it became {_events(lives)}")
    return _by_verdict(moment, [steps[-1] for steps in lives.values()], _events(lives))


def _by_lookers(moment: Moment, services: Sequence[str]) -> Told | None:
    """None where one of them saw it, or none was to look. Else the one that is worst off has lost it, and what the others say stands beside."""
    lost = {service: _of_one(moment, service) for service in services}
    if not lost or any(one is None for one in lost.values()):
        return None
    ordered = sorted(((s, one) for s, one in lost.items() if one), key=lambda pair: WORST_FIRST.index(pair[1].how))
    (first, why), *others = ordered
    return why.by(first, beside="".join(f"; {service}: {one.why}" for service, one in others))


def _of_fold(moment: Moment, service: str) -> _Lost:
    """Why a fold that writes no record a window said nothing."""
    standing, begin = moment.standing[service], moment.windows[0]
    if not standing.account.numbers.has(begin, begin + 1):
        return _silent(moment, service)
    dead = [
        error for name, error in moment.letters.items() if name.startswith(f"{service}/") and _number(name) == begin
    ]
    if dead:
        return _Lost("failed", f"it failed: {dead[0]}")
    at = moment.source.grid.starts_ms(begin)
    if standing.account.times("failed").has(at, at + 1):
        return _Lost("failed", "it failed there, as its coverage says")
    gone = "its coverage accounts for it, and no event of it is to be found: it has expired from the topic"
    return _Lost("expired", gone)


def _number(identity: str) -> int:
    return int(identity.rpartition("/")[2])


def _by_captions(moment: Moment) -> Told:
    captioners = _of(moment.source.services, "caption.")
    if not captioners:
        return Told("nothing lost it: its windows are there, and the task has no stage that looks at them")
    return _by_lookers(moment, captioners) or Told(f"nothing lost it: {_seen(moment, captioners)}")


def _by_incidents(moment: Moment, locate: str) -> Told:
    over = [
        landed
        for landed in moment.said.get(locate, ())
        if isinstance(landed.record, Incident)
        and not landed.record.ended
        and landed.record.start_ms <= moment.at_ms < landed.record.end_ms
    ]
    done = [landed for landed in over if landed.record.outcome == "done"]
    lookers = _by_lookers(moment, _of(moment.source.services, "caption."))
    if not over:
        return lookers or _of_fold(moment, locate).by(locate)
    if not done:
        if lookers:
            return lookers
        record = over[0].record
        return Told(f"{locate} lost it: {record.outcome}, {record.reason}{_letter(moment, record)}", locate)
    placed = ", ".join(
        f"at {_seconds(one)} of {one.start_ms / 1000:g}–{one.end_ms / 1000:g} s" for one in (d.record for d in done)
    )
    if moment.service("ensemble") is None:
        return Told(f"nothing lost it: {locate} places it as an incident {placed}")
    return _by_verdict(moment, done, f"an incident {placed}")


def _by_verdict(moment: Moment, judged_on: Sequence[Landed], made: str) -> Told:
    """What ensemble says of events or incidents; one that it believes is enough."""
    judge = moment.service("ensemble") or "ensemble"
    verdicts = [(of.record, moment.of(judge, of.record.index)) for of in judged_on]
    believed = [v.record for _, v in verdicts if v is not None and v.record.outcome == "done"]
    if believed:
        labels = ", ".join(dict.fromkeys(str(v.label or "an incident") for v in believed))
        return Told(f"nothing lost it: it became {made}, and that a verdict on {labels} at {_seconds(believed[0])}")
    of, verdict = verdicts[0]
    if getattr(of, "event", None) is not None and of.event.state != "close":
        return Told(f"{judge} has not judged it so far: it became {made}, which is still open", judge)
    why = _silent_verdict(moment, judge) if verdict is None else _Lost("unbelieved", unbelieved(moment, verdict.record))
    return why.by(judge, though=f"it had become {made}")


def _silent_verdict(moment: Moment, judge: str) -> _Lost:
    if not moment.standing[judge].asked:
        return _silent(moment, judge)
    absent = [s for s in moment.source.services if s.startswith("describe.") and not moment.standing[s].at_work]
    behind = f"it has {moment.standing[judge].lag} records before it"
    return _Lost(
        "waits", f"it has not come so far; {behind}" + (f", and waits for {', '.join(absent)}" if absent else "")
    )


def _seconds(record: Incident | Verdict) -> str:
    return f"{(record.start_ms if record.time_ms is None else record.time_ms) / 1000:g} s"


def unbelieved(moment: Moment, verdict: Verdict) -> str:
    """The rule that a verdict fell by, with its numbers."""
    options = moment.source.task.get("ensemble") or {}
    if verdict.reason == BELOW:
        wanted = {k.casefold(): v for k, v in (options.get("thresholds") or {}).items()}.get(
            (verdict.label or "").casefold()
        )
        return f"{verdict.label} has a confidence of {verdict.confidence} and needs {wanted} (ensemble.thresholds)"
    if verdict.reason == TOO_FEW:
        by = ", ".join(verdict.found_by or ()) or "nobody"
        return f"seen by {by}, and {options.get('at_least')} models must have seen it (ensemble.at_least)"
    return f"{verdict.outcome}, {verdict.reason}{_letter(moment, verdict)}"


def _seen(moment: Moment, services: Sequence[str]) -> str:
    said = []
    for service in services:
        for landed in moment.here(service):
            record = landed.record if landed else None
            if isinstance(record, Detection) and record.events:
                said.append(f"{service} saw {', '.join(dict.fromkeys(e.label for e in record.events))}")
            elif isinstance(record, Caption) and record.outcome == "done":
                said.append(f"{service} told what it shows")
    return "; ".join(dict.fromkeys(said))


def _events(lives: dict[str, list[Landed]]) -> str:
    last = [steps[-1].record.event for steps in lives.values()]
    return ", ".join(f"event {e.id} ({e.label}, {e.start_ms / 1000:g}–{e.end_ms / 1000:g} s)" for e in last)


# dedup --------------------------------------------------------------------------------------------------------------


def decisions(moment: Moment) -> list[Decision]:
    """Every report of the windows that show the moment, and of which event it is a vote."""
    if "dedup" not in moment.source.services:
        return []
    found = []
    for service in _of(moment.source.services, "detect."):
        model = service.removeprefix("detect.")
        for index in range(*moment.windows):
            landed = moment.of(service, index)
            if landed is None or not isinstance(landed.record, Detection):
                continue
            found += [_decision(moment, model, index, sighting) for sighting in landed.record.events or ()]
    return found


def _decision(moment: Moment, model: str, index: int, sighting: Sighting) -> Decision:
    """By the votes of events as they stood last: each report that was not passed over is one."""
    options: dict[str, Any] = moment.source.task.get("dedup") or {}
    for name, steps in moment.lives().items():
        life: Life = steps[-1].record.event
        if life.label.casefold() == sighting.label.casefold() or options.get("rule") == "likeness":
            votes = {(v.model, v.index) for v in life.votes}
            if (model, index) in votes:
                return Decision(model, index, sighting.label, name, _decided(steps[0], model, index, options))
    at = moment.source.grid.starts_ms(index)
    taken = moment.standing["dedup"].account.times("done").has(at, at + 1)
    return Decision(
        model,
        index,
        sighting.label,
        None,
        "of no event that can be found" if taken else "waits: dedup has not come so far",
    )


def _decided(first: Landed, model: str, index: int, options: dict[str, Any]) -> str:
    begun: Life = first.record.event
    if begun.state == "open" and any(_is(v, model, index) for v in begun.votes):
        own = [v for v in begun.votes if v.index == index]
        return "kept: it opened the event" if len(own) == 1 else "kept: it opened the event, with others of its window"
    rule = options.get("rule", "life")
    if rule == "life":
        return "merged into it: the same label and moment (dedup.rule life)"
    return (
        f"dropped as a repeat by dedup.rule {rule}, within {options.get('within_s')} s of the event's first window; "
        "it stays a vote"
    )


def _is(vote: Vote, model: str, index: int) -> bool:
    return (vote.model, vote.index) == (model, index)
