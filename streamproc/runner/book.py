"""The book of one lease: its state in memory, always ahead of what has landed.

Every method is synchronous, so a cut is consistent at any moment. What is entered and struck out again before the next
cut is never written. The book knows keys and bytes; what to do with a record, it does not.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Several
from typing import Any

import msgspec

from streamproc.bus.contract import Landing, Lease
from streamproc.errors import NewerState
from streamproc.messages import Outcome, Placed, Record, Sequence, Source
from streamproc.runner.cover import Cover, Hour, HourState, sub_key
from streamproc.runner.ends import End, Ends, Life, life_of
from streamproc.runner.guards import Guard, Guards
from streamproc.runner.state import (
    ENGINE_VERSION,
    FORMAT,
    JUMP,
    At,
    Format,
    Parked,
    Run,
    Standing,
    end_key,
    fold_key,
    hour_key,
    pack,
    park_key,
    run_key,
)
from streamproc.stage import Row
from streamproc.topics import SEPARATOR
from streamproc.wire import Entry, Stored


class Progress:
    """Offsets read of one topic, and which of them are still out. Offsets that no record has count as done."""

    __slots__ = ("landed", "next", "out")

    def __init__(self, base: int) -> None:
        self.landed = self.next = base
        self.out: dict[int, None] = {}

    @property
    def base(self) -> int:
        """The first offset not done."""
        return next(iter(self.out), self.next)


class Book:
    """See the head of this file."""

    def __init__(
        self, service: str, *, version: int, lease: Lease, speak: Callable[..., Entry], now: Callable[[], float]
    ) -> None:
        self.service, self.version, self._speak = service, version, speak
        self.dirty = asyncio.Event()
        """Something is to land."""
        self.serial = lease.serial
        self.parked: dict[At, Parked] = {}
        self.places: dict[tuple[str, int, str], Standing] = {}
        self.runs: dict[str, Run] = {}
        self.progress: dict[str, Progress] = {t: Progress(base) for t, base in lease.progress.items()}
        self.outputs: list[Entry] = []
        self.output_bytes = 0
        self.guards = Guards()
        self._waiting: Counter[str] = Counter()
        """Stream → how many of its records are parked."""
        self.ends = Ends(now)
        self.covers: dict[tuple[str, str, int], Cover] = {}
        self._touched: dict[int, Cover] = {}
        self._changes: dict[str, Any] = {}
        self._landed_parks: set[str] = set()
        self.jumped = False
        """Offsets have expired unread, and it has not been looked into."""
        self._moved: set[str] = set()
        self._load(lease.state)
        self._aside = min([0, *(offset for _, offset in self.parked)])
        lease.forget_state()

    # what is known

    @property
    def anything_out(self) -> bool:
        """Some record was read and has no outcome so far, or waits."""
        return bool(self.parked) or any(p.out for p in self.progress.values())

    # what happens

    def read(self, topic: str, offset: int) -> None:
        """The record at offset is in our hands; nothing below base counts as done before it is."""
        progress = self.progress.get(topic)
        if progress is None:
            progress = self.progress[topic] = Progress(offset)
            progress.landed = -1
        progress.out[offset] = None
        progress.next = offset + 1

    def passed(self, batch: Several[Stored]) -> None:
        """All of these are read and done, and nothing of their topics is out."""
        for stored in batch:
            progress = self.progress.get(stored.topic)
            if progress is None:
                progress = self.progress[stored.topic] = Progress(stored.offset)
                progress.landed = -1
            progress.next = stored.offset + 1
            self._moved.add(stored.topic)
        self.dirty.set()

    def done(self, at: At) -> None:
        """Nothing is left to do for this offset."""
        topic, offset = at
        progress = self.progress.get(topic)
        if progress is not None and progress.out.pop(offset, self) is not self:
            self._moved.add(topic)
            self.dirty.set()

    def take(self, sequence: Sequence, index: int, until: int) -> None:
        guard = self.guards.get(sequence)
        if guard is None:
            guard = self.guards.add(sequence)
            guard.over = life_of(sequence) in self.ends
        guard.taken.add(index, until)
        self._changes[guard.key] = guard
        if guard.over:
            self.again(sequence)
        self.dirty.set()

    def jump(self) -> None:
        self.jumped = True
        self._changes[JUMP] = True
        self.dirty.set()

    def looked(self) -> None:
        """What went with the jump is known, and in the book."""
        if self.jumped:
            self.jumped = False
            self._changes[JUMP] = None
            self.dirty.set()

    def aside(self) -> int:
        """A place for what was never read: no offset of any topic, and nobody else's."""
        self._aside -= 1
        return self._aside

    def park(self, at: At, stream: str, parked: Parked) -> None:
        self._waiting[stream] += at not in self.parked
        self.parked[at] = parked
        self._changes[park_key(stream, at)] = parked
        self.dirty.set()

    def unpark(self, at: At, stream: str) -> None:
        if self.parked.pop(at, None) is None:
            return
        self._waiting[stream] -= 1
        if not self._waiting[stream]:
            del self._waiting[stream]
        key = park_key(stream, at)
        if key in self._landed_parks:
            self._changes[key] = None
            self.dirty.set()
        else:
            self._changes.pop(key, None)

    def fold(self, stream: str, generation: int, root: str, place: Standing) -> None:
        life = (stream, generation, root)
        self.places[life] = place
        self._changes[fold_key(life)] = place
        if place.over:
            self.end(life)
        self.dirty.set()

    def run(self, stream: str, run: Run) -> None:
        before, life = self.runs.get(stream), (stream, run.generation, self.service)
        if before is not None and before.generation != run.generation:
            self.end((stream, before.generation, self.service))
        if run.over:
            self.end(life)
        elif self.ends.drop(life):
            self._changes[end_key(life)] = None
        self.runs[stream] = run
        self._changes[run_key(stream)] = run
        self.dirty.set()

    # what is over

    def end(self, life: Life, counts: Mapping[str, int] | None = None) -> None:
        """Somebody has said its last, or (without a count) there is nothing more to come."""
        upto = {name: progress.next for name, progress in self.progress.items()}
        self._changes[end_key(life)] = self.ends.heard(life, upto, counts)
        self._mark_over(life)
        self.dirty.set()

    def _mark_over(self, life: Life) -> None:
        for _, guard in self.guards.of(life):
            guard.over = True

    def again(self, sequence: Sequence) -> None:
        """Something was heard of a sequence; if it is over, it has to be kept for a while longer."""
        if (life := life_of(sequence)) in self.ends:
            self.end(life)

    def forget(self, keep_s: float) -> list[tuple[Life, list[Sequence]]]:
        """Forget what is over for good: see `ends`. Returns it, and the sequences it had."""
        bases = {name: progress.base for name, progress in self.progress.items()}
        forgotten = [(life, self._forget(life)) for life in self.ends.old(keep_s, bases) if self._closed(life)]
        if forgotten:
            self.dirty.set()
        return forgotten

    def remembered(self) -> set[tuple[str, int]]:
        """Stream and generation of all that anything is kept of."""
        kept = {(stream, generation) for stream, generation, _ in self.guards.lives}
        return kept | {(stream, run.generation) for stream, run in self.runs.items()}

    def _closed(self, life: Life) -> bool:
        """Every number is taken, and nothing of it is under way or to be told."""
        stream, generation, root = life
        cover = self.covers.get((root, stream, generation))
        if stream in self._waiting or id(cover) in self._touched:
            return False
        if (run := self.runs.get(stream)) and root == self.service:
            return run.generation > generation or (run.over and cover is not None and cover.count is not None)
        if (place := self.places.get(life)) and place.over:
            return True
        counts = self.ends.counts(life)
        return all(
            len(guard.taken) == 1 and guard.taken.end == counts.get(s.service, -1) + 1
            for s, guard in self.guards.of(life)
            if s.service
        )

    def _forget(self, life: Life) -> list[Sequence]:
        stream, generation, root = life
        guards = self.guards.forget(life)
        if root == self.service:  # a run's: what it read is numbered by whoever told of the stream
            for _, other in self.guards.writers:
                guards += self.guards.forget((stream, generation, other))
            if (run := self.runs.get(stream)) and run.generation == generation:
                del self.runs[stream]
                self._changes[run_key(stream)] = None
        self._changes |= {guard.key: None for _, guard in guards}
        if cover := self.covers.pop((root, stream, generation), None):
            self._changes |= {hour_key(cover, number): None for number in cover.hours}
        if self.places.pop(life, None):
            self._changes[fold_key(life)] = None
        self.ends.drop(life)
        self._changes[end_key(life)] = None
        return [sequence for sequence, _ in guards]

    # what is said

    def emit_all(self, entries: list[Entry]) -> None:
        self.outputs += entries
        self.output_bytes += sum([len(e.key) + len(e.value or b"") for e in entries])
        self.dirty.set()

    def emit(self, entry: Entry) -> None:
        self.outputs.append(entry)
        self.output_bytes += entry.size
        self.dirty.set()

    def cover(self, place: Record | Row, outcome: Outcome, source: Source | None) -> None:
        cover = self._cover(place.root, place.stream, place.generation)
        cover.add(place, outcome, source)
        self._touched[id(cover)] = cover
        self.dirty.set()

    def covers_from(self, place: Placed, first: int) -> None:
        """This service owes nothing of the sequence below `first`."""
        self._cover(place.root, place.stream, place.generation).owes_from(first)

    # landing

    @property
    def size(self) -> int:
        """How much waits to land: entries and changes."""
        return len(self.outputs) + len(self._changes)

    def cut(self) -> Landing:
        """Everything so far, as one landing; the book goes on from an empty page."""
        self.dirty.clear()
        for cover in self._touched.values():
            self._cut_cover(cover)
        self._touched = {}
        for name in self._moved:
            self.guards.trim_bare(name, self.progress[name].base)
        self.serial += 1
        landing = Landing(
            serial=self.serial,
            outputs=self.outputs,
            state={key: self._packed(key, value) for key, value in self._changes.items()},
            progress=self._moved_bases(),
        )
        self.outputs, self.output_bytes, self._changes, self._moved = [], 0, {}, set()
        return landing

    def _cut_cover(self, cover: Cover) -> None:
        life = (cover.stream, cover.generation, cover.root)
        for number in cover.settle(lambda lo, hi: self._nobody_owes(life, lo, hi)):
            self._changes[hour_key(cover, number)] = None
        for number in sorted(cover.touched):
            record = cover.record(self.service, number)
            self.outputs.append(self._speak(record, sub=sub_key(record)))
            self._changes[hour_key(cover, number)] = (cover.hours[number], cover.settled)
        cover.touched.clear()

    def _nobody_owes(self, life: Life, lo: int, hi: int) -> bool:
        """[lo, hi), which has no outcome here, will have none: a fold has gone past it, or it was read and passed over."""
        if place := self.places.get(life):
            return place.index >= hi
        guards = [guard for s, guard in self.guards.of(life) if s.service]
        read = bool(guards) and all(guard.taken.has(lo, hi) for guard in guards)
        return read and life[0] not in self._waiting

    def _moved_bases(self) -> dict[str, int]:
        bases = {}
        for topic in self._moved:
            progress = self.progress[topic]
            if progress.base != progress.landed:
                bases[topic] = progress.landed = progress.base
        return bases

    def _packed(self, key: str, value: Any) -> bytes | None:
        match value:
            case None:
                self._landed_parks.discard(key)
                return None
            case Guard():
                return pack(value.taken.pairs())
            case (Hour() as hour, settled):
                return pack(hour.state(settled))
            case Parked():
                self._landed_parks.add(key)
        return pack(value)

    # loading

    def _load(self, state: Mapping[str, bytes]) -> None:
        written = msgspec.msgpack.decode(state[FORMAT], type=Format) if FORMAT in state else None
        if written and (written.engine > ENGINE_VERSION or written.stage > self.version):
            raise NewerState(
                f"{self.service}: its state was written by version {written.engine}.{written.stage}, this is "
                f"{ENGINE_VERSION}.{self.version}; run the newer version, here too"
            )
        if written != (now := Format(ENGINE_VERSION, self.version)):
            self._changes[FORMAT] = now  # lands with the first landing; nothing to land on its own account
        ends: dict[Life, End] = {}
        for key, value in state.items():
            stream, kind, *rest = key.split(SEPARATOR)
            if key == JUMP:
                self.jumped = True
            elif kind == "end":
                ends[stream, int(rest[0]), rest[1]] = msgspec.msgpack.decode(value, type=End)
            elif key != FORMAT:
                self._load_one(key, stream, kind, rest, value)
        self.ends.load(ends)
        for life in ends:
            self._mark_over(life)

    def _load_one(self, key: str, stream: str, kind: str, rest: list[str], value: bytes) -> None:
        decode = msgspec.msgpack.decode
        match kind, rest:
            case "guard", [generation, service, root]:
                self.guards.add(Sequence(service, root, stream, int(generation)), decode(value))
            case "cover", [generation, root, hour]:
                self._cover(root, stream, int(generation)).load(int(hour), decode(value, type=HourState))
            case "park", [topic, offset]:
                self.parked[topic, int(offset)] = decode(value, type=Parked)
                self._waiting[stream] += 1
                self._landed_parks.add(key)
            case "fold", [generation, root]:
                self.places[stream, int(generation), root] = decode(value, type=Standing)
            case "run", []:
                self.runs[stream] = decode(value, type=Run)
            case _:
                raise NewerState(f"{self.service}: state key {key!r} is unknown to this version")

    def _cover(self, root: str, stream: str, generation: int) -> Cover:
        cover = self.covers.get((root, stream, generation))
        if cover is None:
            cover = self.covers[root, stream, generation] = Cover(root, stream, generation)
        return cover

    def __iter__(self) -> Iterator[tuple[At, Parked]]:
        """What was parked, in the order of the log."""
        return iter(sorted(self.parked.items(), key=lambda item: item[0]))
