"""Replay: windows of another stream said again under a name of their own, or its footage decoded again over their range.

A replay is a stream like any other. Its numbers are its own, from 0, on the grid of the original: number i stands where
the original's `begin + i` did, and every time is the original's. What has expired since is a counted gap.

Its address says what it is made of, to the last number, so that a run which begins anew after a kill does the same.
Sources that are no replays are the decoder's; who the original was and what may be replayed of it is decided elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from streamproc.errors import Rejected
from streamproc.messages import Record, Source, Window
from streamproc.stage import Follow, Pace
from streamproc.stages.pacing import portions, room
from streamproc.stages.revisions import holds_until
from streamproc.video.keep import UNREACHABLE
from streamproc.video.recipe import sampling_of
from streamproc.video.recorded import Footage, again
from streamproc.video.windows import UNREADABLE, Cut

SCHEME = "replay:"
EXPIRED = "expired"
FOOTAGE = "footage"
ROOT = "decode"
SLICE_S = 60
"""Seconds of a recording that are decoded at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """What is replayed: `replay:STREAM?at=…`."""

    stream: str
    generation: int
    at: str
    """The topic that is said again, or footage."""
    ranges: Mapping[str, tuple[int, int]]
    """Root → [begin, until) of its numbers."""
    left: int = 0
    """Events that the range leaves open; they are closed behind the numbers of theirs."""
    said: tuple[str, ...] = ()
    """Services whose words are said again; they do nothing anew."""
    end_ms: int
    """Where the range ends, in stream time."""
    offset: int = 0
    """Nothing of the range stands before it in `windows`."""
    asked: str = ""
    """The range as it was asked for."""
    footage_of: tuple[str, int, bool] = ("", 0, False)
    """Stream, generation and kind (a feed?) of whoever has pictures: the original, or where that came from."""
    began_ms: int | None = None
    """Of what comes from a feed: when its stream time was 0, by the wall clock."""

    @property
    def begin(self) -> int:
        return self.ranges[ROOT][0]

    @property
    def until(self) -> int:
        return self.ranges[ROOT][1]

    @property
    def of_feed(self) -> bool:
        """Its pictures are those that a feed brought."""
        return self.footage_of[2]

    def utc(self, at_ms: int) -> str | None:
        """Wall-clock time of a stream time."""
        if self.began_ms is None:
            return None
        return datetime.fromtimestamp((self.began_ms + at_ms) / 1000, UTC).isoformat(timespec="milliseconds")

    @property
    def uri(self) -> str:
        stream, generation, live = self.footage_of
        told: dict[str, str | int] = {
            "at": self.at,
            "generation": self.generation,
            "ranges": ",".join(f"{root}:{lo}-{hi}" for root, (lo, hi) in sorted(self.ranges.items())),
            "said": ",".join(self.said),
            "end_ms": self.end_ms,
            "offset": self.offset,
            "asked": self.asked,
            "footage": f"{generation}:{int(live)}:{stream}",
        }
        if self.left:
            told["left"] = self.left
        if self.began_ms is not None:
            told["began_ms"] = self.began_ms
        return f"{SCHEME}{quote(self.stream, safe='')}?{urlencode(told, safe=',:')}"

    @classmethod
    def parse(cls, uri: str) -> Self:
        name, _, rest = uri.removeprefix(SCHEME).partition("?")
        told = dict(parse_qsl(rest, keep_blank_values=True))
        try:
            generation, live, stream = told["footage"].split(":", 2)
            return cls(
                stream=unquote(name),
                generation=int(told["generation"]),
                at=told["at"],
                ranges=dict(_range(part) for part in told["ranges"].split(",")),
                left=int(told.get("left", 0)),
                said=tuple(s for s in told["said"].split(",") if s),
                end_ms=int(told["end_ms"]),
                offset=int(told["offset"]),
                asked=told["asked"],
                footage_of=(stream, int(generation), live == "1"),
                began_ms=int(told["began_ms"]) if "began_ms" in told else None,
            )
        except (KeyError, ValueError) as e:
            raise Rejected(f"'{uri}' says no replay: {e}") from e


def _range(text: str) -> tuple[str, tuple[int, int]]:
    root, _, numbers = text.partition(":")
    lo, _, hi = numbers.partition("-")
    return root, (int(lo), int(hi))


def is_replay(uri: str) -> bool:
    return uri.startswith(SCHEME)


class Archive(Protocol):
    """Whoever can read what other streams have left on the bus."""

    def windows(self, original: Original, offset: int) -> AsyncGenerator[tuple[Sequence[Window], int]]:
        """Records of the original from an offset of theirs on, in order, and where they end; over with the last one wanted,
        or where no more of them will come."""


class Cursor(Struct, frozen=True, array_like=True):
    """How far a replay of windows has come."""

    index: int
    """The next number."""
    offset: int
    """From here on the original has not been read."""
    ended: bool = False


Step = tuple[Sequence[Record], Any]


class Replay(Follow):
    """Where streams begin. `decode` has those that are no replays, and the footage of those that are."""

    reads, writes = ("sources",), ("windows",)
    Cursor: ClassVar[Any] = msgspec.Raw
    """Whoever has a stream knows what its cursor is."""

    def __init__(self, decode: Follow, archive: Archive, footage: Footage) -> None:
        """`footage` is of feeds; files are decoded."""
        self._decode, self._archive, self._footage = decode, archive, footage

    def run(self, source: Source, cursor: msgspec.Raw | None, look: Pace) -> AsyncGenerator[Step]:
        if not is_replay(source.uri):
            return self._decoded(source, cursor, look)
        original = Original.parse(source.uri)
        if original.at == FOOTAGE and not original.of_feed:
            return self._decoded_again(source, original, cursor, look)
        return self._anew(source, original, cursor, look)

    def otherwise(self, source: Source, cursor: msgspec.Raw | None, reason: str) -> tuple[Sequence[Record], Any]:
        if is_replay(source.uri):
            with suppress(Rejected):  # an address that says nothing is as good as a file that is not there
                return _lost(source, Original.parse(source.uri), cursor)
        return self._decode.otherwise(source, self._place(cursor), reason)

    def silent_s(self) -> Mapping[str, float]:
        return self._decode.silent_s()

    def _place(self, cursor: msgspec.Raw | None) -> Any:
        return None if cursor is None else msgspec.msgpack.decode(cursor, type=self._decode.Cursor)

    async def _decoded(self, source: Source, cursor: msgspec.Raw | None, look: Pace) -> AsyncGenerator[Step]:
        async with aclosing(self._decode.run(source, self._place(cursor), look)) as steps:  # type: ignore[type-var]  # an async generator by contract
            async for step in steps:
                yield step

    # windows, and the footage of feeds

    async def _anew(
        self, source: Source, original: Original, cursor: msgspec.Raw | None, look: Pace
    ) -> AsyncGenerator[Step]:
        """From the cursor to the end, whoever has the pictures."""
        at = Cursor(0, original.offset) if cursor is None else msgspec.msgpack.decode(cursor, type=Cursor)
        if at.ended or source.state == "paused":
            return
        if source.state == "active":
            steps = self._recorded if original.at == FOOTAGE else self._said_again
            async with aclosing(steps(source, original, at, look)) as portions:
                async for records, at in portions:
                    yield records, at
        last = look.in_force(source.stream, source.generation, at.index) or source
        yield [_ended(last, original, at.index)], Cursor(at.index, at.offset, ended=True)

    async def _said_again(
        self, source: Source, original: Original, at: Cursor, look: Pace
    ) -> AsyncGenerator[tuple[Sequence[Window], Cursor]]:
        whole = original.until - original.begin
        async with aclosing(self._archive.windows(original, at.offset)) as parts:
            async for found, behind in parts:
                async for records, place in self._portions(source, original, found, at, behind, look):
                    yield records, place
                    at = place
        if at.index < whole:
            yield _gaps(source, original, look, at.index, whole), Cursor(whole, at.offset)

    async def _recorded(
        self, source: Source, original: Original, at: Cursor, look: Pace
    ) -> AsyncGenerator[tuple[Sequence[Window], Cursor]]:
        """A feed's pictures of a stretch after the other, for as long as they fit into memory with ease."""
        cut = Cut.on(source.grid, sampling_of(source.task.get("sampling") or {}, source.grid))
        if original.began_ms is not None:
            cut = dataclasses.replace(cut, began=datetime.fromtimestamp(original.began_ms / 1000, UTC))
        whole, most = original.until - original.begin, max(1, int(SLICE_S / cut.sampling.step_s))
        reach = await self._footage.reach(source)
        for begin in range(at.index, whole, most):
            records = await again(self._footage, source, cut, begin, min(begin + most, whole), reach=reach)
            for part in portions(source, records):
                await room(look, source, part)
                yield part, Cursor(part[-1].until, at.offset)

    async def _portions(
        self, source: Source, original: Original, found: Sequence[Window], at: Cursor, behind: int, look: Pace
    ) -> AsyncGenerator[tuple[Sequence[Window], Cursor]]:
        """What has been read, said again as the slowest reader has room for it. The original is read anew from where this
        began until all of it is said."""
        records, index = list[Window](), at.index
        for window in found:
            lo, hi = window.index - original.begin, window.until - original.begin
            lo, hi = max(lo, index), min(hi, original.until - original.begin)
            if window.ended or lo >= hi:
                continue  # said already, by an owner that was torn; or none of ours
            records += _gaps(source, original, look, index, lo)
            records += _again(source, look, window, lo, hi, original.begin)
            index = hi
        for part in portions(source, records):
            await room(look, source, part)
            yield part, Cursor(part[-1].until, behind if part[-1] is records[-1] else at.offset)

    # footage of files

    async def _decoded_again(
        self, source: Source, original: Original, cursor: msgspec.Raw | None, look: Pace
    ) -> AsyncGenerator[Step]:
        """The decoder at work on the file itself, told to stop where the range does."""
        if source.footage is None:
            raise Rejected(f"{source.stream}: nobody kept pictures of '{original.stream}'")
        file, whole = replace(source, uri=source.footage), original.until - original.begin
        place = self._place(cursor)
        async with aclosing(self._decode.run(file, place, _OnFootage(look))) as steps:  # type: ignore[type-var]  # an async generator by contract
            async for records, at in steps:
                if all(r.until <= whole and not r.ended for r in records):
                    yield records, at
                    continue
                here = [_within(source, r, whole) for r in records if r.index < whole and not r.ended]
                index = min([whole, *(r.count for r in records if r.count is not None)])
                last = look.in_force(source.stream, source.generation, index) or source
                yield [*here, _ended(last, original, index)], replace(at, index=index, ended=True)
                return


class _OnFootage:
    """The table as the decoder is to see it: the address is that of the pictures."""

    def __init__(self, look: Pace) -> None:
        self._look = look
        self.source, self.get, self.expect, self.room = look.source, look.get, look.expect, look.room
        self.behind = look.behind

    def in_force(self, stream: str, generation: int, index: int) -> Source | None:
        found = self._look.in_force(stream, generation, index)
        return found and replace(found, uri=found.footage or found.uri)


def _within(source: Source, record: Record, until: int) -> Record:
    """A gap that reaches beyond the range is cut there."""
    if record.until <= until:
        return record
    return replace(record, until_index=until, end_ms=source.grid.starts_ms(until))


def _again(source: Source, look: Pace, window: Window, lo: int, hi: int, begin: int) -> list[Window]:
    """A record of the original as [lo, hi) of ours."""
    if window.until_index is None:
        here = look.in_force(source.stream, source.generation, lo) or source
        return [_ours(here, window, lo, hi, window.start_ms, window.end_ms)]
    told = []
    for a, b, here in _by_revision(source, look, lo, hi):
        start_ms = window.start_ms if a + begin == window.index else here.grid.starts_ms(a)
        end_ms = window.end_ms if b + begin == window.until else here.grid.starts_ms(b)
        told.append(_ours(here, window, a, b, start_ms, end_ms))
    return told


def _ours(here: Source, window: Window, lo: int, hi: int, start_ms: int, end_ms: int) -> Window:
    return replace(
        window,
        id="",
        service="",
        stream=here.stream,
        generation=here.generation,
        revision=here.revision,
        index=lo,
        until_index=None if window.until_index is None else hi,
        start_ms=start_ms,
        end_ms=end_ms,
    )


def _ended(last: Source, original: Original, index: int) -> Window:
    """The record behind the last number."""
    end_ms = original.end_ms if index == original.until - original.begin else last.grid.starts_ms(index)
    return Window.of(last, index=index, start_ms=end_ms, end_ms=end_ms, count=index, utc=original.utc(end_ms))


class _Begun(Struct, frozen=True, array_like=True):
    """What the cursors of all of them begin with."""

    index: int


def _lost(source: Source, original: Original, cursor: msgspec.Raw | None) -> tuple[Sequence[Record], Any]:
    """Of a range whose pictures cannot be had the rest has failed, so that nobody takes it for complete."""
    index = 0 if cursor is None else msgspec.msgpack.decode(cursor, type=_Begun).index
    whole, start_ms = original.until - original.begin, source.grid.starts_ms(index)
    lost = Window.of(
        source,
        index=index,
        until_index=whole,
        start_ms=start_ms,
        end_ms=original.end_ms,
        utc=original.utc(start_ms),
        outcome="failed",
        reason=UNREACHABLE if original.at == FOOTAGE else UNREADABLE,
    )
    return [*([lost] if index < whole else []), _ended(source, original, whole)], Cursor(whole, 0, ended=True)


def _gaps(source: Source, original: Original, look: Pace, lo: int, hi: int) -> list[Window]:
    """What has expired."""
    return [
        Window.of(
            here,
            index=a,
            until_index=b,
            start_ms=here.grid.starts_ms(a),
            end_ms=here.grid.starts_ms(b),
            utc=original.utc(here.grid.starts_ms(a)),
            outcome="skipped",
            reason=EXPIRED,
        )
        for a, b, here in _by_revision(source, look, lo, hi)
    ]


def _by_revision(source: Source, look: Pace, lo: int, hi: int) -> list[tuple[int, int, Source]]:
    """[lo, hi) cut where revisions begin."""
    parts = []
    while lo < hi:
        here = look.in_force(source.stream, source.generation, lo) or source
        until = holds_until(source, look, lo, hi)
        parts.append((lo, until, here))
        lo = until
    return parts
