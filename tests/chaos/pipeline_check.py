"""What the topics say of a pipeline, read from their beginning when everything is over, against what is true.

lost, doubled     numbers of a sequence that have no outcome, or more than one: of every service and stream
inexact           outcomes that do not say what is true: a picture's number, what was answered about it, an event's votes
unaccounted       verdicts that do not stand on exactly the event they judge and the description of it, both there
uncovered         coverage that is not what the outcomes say, or has a hole
dead              dead letters that nobody should have, or that should be there and are not, or are there twice
repeated and the rest of what was asked: as `check` says. What landed was never asked for again
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from streamproc.messages import (
    Caption,
    Context,
    Description,
    Detection,
    Event,
    Incident,
    Record,
    Verdict,
    Window,
    parse_id,
    record_id,
)  # fmt: skip
from tests.chaos import check as one_stage
from tests.chaos.pipeline_evidence import SEQUENCES, Evidence, Key, Said
from tests.chaos.pipeline_heard import OWES
from tests.chaos.pipeline_truth import (
    CAPTION,
    CONTEXT,
    DESCRIBE,
    DETECT,
    LOCATE,
    NONSENSE,
    REFUSED,
    STEP_MS,
    Asked,
    Happened,
    answer,
    happened,
    tables,
    thing,
    understood,
)  # fmt: skip
from tests.chaos.pipeline_weather import DESCRIBE as DESCRIBER
from tests.chaos.pipeline_weather import A, B


@dataclass
class Findings(one_stage.Findings):
    unaccounted: int = 0
    uncovered: int = 0

    @property
    def ok(self) -> bool:
        return super().ok and not (self.unaccounted or self.uncovered)

    def counts(self) -> dict[str, int]:
        named = ("lost", "doubled", "inexact", "unaccounted", "uncovered", "dead", "repeated", "needless", "in_hand")
        return {name: getattr(self, name) for name in (*named, "in_flight", "repeated_landed")}

    def wrong(self, what: str, example: str) -> None:
        setattr(self, what, getattr(self, what) + 1)
        self.note(f"{what}: {example}")


# checking -----------------------------------------------------------------------------------------------------------


def check(evidence: Evidence) -> Findings:
    found = Findings()
    landed: dict[Key, float] = {}
    letters: Counter[tuple[str, str]] = Counter()
    for stream, windows in evidence.windows_of.items():
        one = _Stream(evidence, found, stream, windows)
        one.sequences()
        one.contents()
        one.verdicts()
        one.covered()
        landed.update(one.landed())
        letters.update(one.letters())
    _dead(evidence, letters, found)
    one_stage.asked(evidence.calls, landed, evidence.harms, evidence.wakes, found)
    return found


def _dead(evidence: Evidence, wanted: Counter[tuple[str, str]], found: Findings) -> None:
    there = Counter(evidence.dead)
    for letter in (wanted - there).elements():
        found.wrong("dead", f"no dead letter of {letter}")
    for letter in (there - wanted).elements():
        found.wrong("dead", f"a dead letter too many: {letter}")


class _Stream:
    """One stream: what it must say, and what it says."""

    def __init__(self, evidence: Evidence, found: Findings, stream: str, windows: int) -> None:
        self.evidence, self.found, self.stream, self.windows = evidence, found, stream, windows
        self.there = "/no-such" not in evidence.sources[stream].uri
        self.happened = {h.label: h for h in happened(stream, windows)} if self.there else {}
        events = sum(len({index for _, index in h.votes}) + 1 for h in self.happened.values())
        self.tables = list(tables(stream, windows)) if self.there else [""]
        self.counts = {
            "decode": windows,
            "context.c": min(1, windows),
            "dedup": events,
            "locate.c": len(self.tables),
            "ensemble": events,
        }

    def table(self, number: int) -> str:
        return self.tables[number] if number < len(self.tables) else ""

    def of(self, service: str, root: str) -> list[Said]:
        return self.evidence.of(service, root, self.stream)

    def outcomes(self, service: str, root: str) -> Iterator[Said]:
        """Without gaps and the end."""
        return (s for s in self.of(service, root) if not s.record.ended)

    # every number once

    def sequences(self) -> None:
        for name, service, root in SEQUENCES:
            taken: Counter[int] = Counter()
            for one in self.of(service, root):
                taken.update(range(one.record.index, one.record.until))
            where = f"{name} of {service}, {root} of {self.stream}"
            for number in range(self.counts[root] + 1):
                if not taken[number]:
                    self.found.wrong("lost", f"{where}: {number}")
            for number, times in taken.items():
                if times > 1:
                    self.found.wrong("doubled", f"{where}: {number}, {times} times")
                if number > self.counts[root]:
                    self.found.wrong("inexact", f"{where}: {number} is behind the end, {self.counts[root]}")

    # each says what is true

    def contents(self) -> None:
        places = [(service, root) for _, service, root in SEQUENCES]
        for service, root in places:
            for one in self.outcomes(service, root):
                if not self._true(one):
                    self.found.wrong("inexact", f"{one.record}, pictures {one.pictures}")
        self._lives()

    def _true(self, one: Said) -> bool:
        record = one.record
        if not self.there:
            return bool(record.outcome != "done")
        match record:
            case Window():
                shown = tuple(range(record.index, min(record.index + 2, self.windows)))
                return record.outcome == "done" and one.pictures[:1] == shown[:1] and set(one.pictures) >= set(shown)
            case Context():
                return self._answered(record, CONTEXT, "0") and record.fields in (None, {"scene": self.stream})
            case Caption():
                asked = Asked(CAPTION, self.stream, f"{record.index}")
                return self._answered(record, CAPTION, asked.number) and record.text in (None, answer(asked))
            case Detection():
                label = thing(record.index)
                seen = None if record.events is None else [s.label for s in record.events]
                wanted = [label] if label else []
                right = self._answered(record, DETECT, f"{record.index}")
                return right and seen == (wanted if record.outcome == "done" else None)
            case Incident():
                table = self.table(record.index)
                if table and Asked(LOCATE, self.stream, table).manner == NONSENSE:  # nobody votes: it is the first
                    return (record.outcome, record.reason, record.votes) == ("done", "unreadable", 0)
                return self._answered(record, LOCATE, table) if table else record.outcome != "done"
            case Description():
                return self._described(record)
        return True  # events and verdicts are looked at together

    def _answered(self, record: Record, kind: str, number: str) -> bool:
        return (record.outcome == "done") == understood(Asked(kind, self.stream, number))

    def _described(self, record: Description) -> bool:
        asked = self.asked_of(record)
        if asked is None:
            return record.outcome != "done"
        if asked.manner == REFUSED:
            return record.outcome == "failed"
        return record.fields == {"text": f"{self.stream} tells of {asked.number}"}

    def asked_of(self, record: Description) -> Asked | None:
        """What was asked to make a description; None where nothing was."""
        of = next((s.record for s in self.outcomes(record.root, record.root) if s.record.index == record.index), None)
        if isinstance(of, Event) and of.event is not None and of.event.state == "close":
            return Asked(DESCRIBE, self.stream, f"'{of.event.label}' at {of.event.time_ms / 1000:g} s")
        if isinstance(of, Incident) and of.outcome == "done" and of.time_ms is not None:
            return Asked(DESCRIBE, self.stream, f"{of.time_ms / 1000:g} s")
        return None

    def _lives(self) -> None:
        """Every event that happened, once, with all its votes; opened, updated and closed in order."""
        lives: dict[str, list[Any]] = defaultdict(list)
        for one in sorted(self.outcomes("dedup", "dedup"), key=lambda s: s.record.index):
            if one.record.event is not None:
                lives[one.record.event.id].append(one.record.event)
        last = {life[-1].label: life for life in lives.values()}
        if len(last) != len(lives) or set(last) != set(self.happened):
            self.found.wrong("inexact", f"events of {self.stream}: {sorted(last)}, not {sorted(self.happened)}")
            return
        for label, life in last.items():
            if not _lived(life, self.happened[label]):
                self.found.wrong("inexact", f"{life}, not {self.happened[label]}")

    # verdicts

    def verdicts(self) -> None:
        events = {s.record.index: s.record for s in self.outcomes("dedup", "dedup")}
        descriptions = {s.record.index: s.record for s in self.outcomes(DESCRIBER, "dedup")}
        for one in self.outcomes("ensemble", "ensemble"):
            verdict: Verdict = one.record
            event, description = events.get(verdict.index), descriptions.get(verdict.index)
            if event is None or event.event is None or event.event.state != "close":
                if verdict.outcome != "skipped" or verdict.inputs:
                    self.found.wrong("unaccounted", f"{verdict}, though the event is not closed: {event}")
                continue
            told = [description.id] if description is not None and description.outcome == "done" else []
            if verdict.outcome != "done" or list(verdict.inputs or ()) != [event.id, *told]:
                self.found.wrong("unaccounted", f"{verdict.id} stands on {verdict.inputs}, not {event.id} and {told}")

    # coverage

    def covered(self) -> None:
        for service, roots in OWES.items():
            for root in roots:
                record = self.evidence.coverage.get((service, root, self.stream))
                count = self.counts[root]
                if record is None or record.count != count or list(record.taken) != [(0, count + 1)] or record.missing:
                    self.found.wrong("uncovered", f"{service}, {root} of {self.stream}: {record}; it has {count}")
                elif (wanted := self._times(service, root)) and wanted != {k: getattr(record, k) for k in wanted}:
                    self.found.wrong("uncovered", f"{record} of {wanted}")

    def _times(self, service: str, root: str) -> dict[str, tuple[tuple[int, int], ...]]:
        """Of those who answer windows: what each outcome stands for, taken together."""
        if service not in ("decode", "caption.c", A, B) or not self.there:
            return {}
        outcome = {s.record.index: s.record.outcome for s in self.outcomes(service, root)}
        times: dict[str, list[tuple[int, int]]] = {"done": [], "failed": [], "skipped": []}
        for index in range(self.windows):
            pairs = times[outcome.get(index, "skipped")]
            begin, end = index * STEP_MS, (index + 1) * STEP_MS
            if pairs and pairs[-1][1] == begin:
                begin = pairs.pop()[0]
            pairs.append((begin, end))
        return {kind: tuple(pairs) for kind, pairs in times.items()}

    # what was asked, and what nobody would answer

    def landed(self) -> Iterator[tuple[Key, float]]:
        for service, kind in (("caption.c", CAPTION), (A, DETECT), (B, DETECT)):
            for one in self.outcomes(service, "decode"):
                yield (f"{kind}.{service[-1]}", self.stream, f"{one.record.index}"), one.landed_at
        for one in self.outcomes("context.c", "context.c"):
            yield (f"{CONTEXT}.c", self.stream, "0"), one.landed_at
        for one in self.outcomes("locate.c", "locate.c"):
            yield (f"{LOCATE}.c", self.stream, self.table(one.record.index)), one.landed_at
        for root in OWES[DESCRIBER]:
            for one in self.outcomes(DESCRIBER, root):
                if asked := self.asked_of(one.record):
                    yield (f"{DESCRIBE}.c", self.stream, asked.number), one.landed_at

    def letters(self) -> Iterator[tuple[str, str]]:
        """Dead letters that there must be: of what was refused, and of a film that is not there."""
        if not self.there:
            yield "decode", self.evidence.sources[self.stream].id
            return
        for service, kind in (("caption.c", CAPTION), (A, DETECT), (B, DETECT)):
            for index in range(self.windows):
                if Asked(kind, self.stream, f"{index}").manner == REFUSED:
                    yield service, record_id("decode", "decode", self.stream, 0, index)
        for root in OWES[DESCRIBER]:
            for one in self.outcomes(DESCRIBER, root):
                if (asked := self.asked_of(one.record)) and asked.manner == REFUSED:
                    yield DESCRIBER, record_id(root, root, self.stream, 0, one.record.index)
        # A fold's letter is the record that ended the row: of the context the first window whose time was up.
        if Asked(CONTEXT, self.stream, "0").manner == REFUSED:
            yield from (d for d in self.evidence.dead if self._is_of("context.c", d))
        yield from (d for d in self.evidence.dead if self._is_of("locate.c", d))

    def _is_of(self, service: str, letter: tuple[str, str]) -> bool:
        there = parse_id(letter[1])
        return letter[0] == service and there is not None and there[0].stream == self.stream


def _lived(life: Sequence[Any], truth: Happened) -> bool:
    last = life[-1]
    return (
        [step.revision for step in life] == list(range(len(life)))
        and [step.state for step in life] == ["open", *["update"] * (len(life) - 2), "close"]
        and {(vote.model, vote.index) for vote in last.votes} == set(truth.votes)
        and last.start_ms == truth.start_ms
    )
