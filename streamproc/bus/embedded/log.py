"""Records as rows. A row holds the records of one landing for one partition, as far as 64 kB go; large values lie in segments.

In compacted topics a row is one record, and all of it lies in the row: there records go one by one, not by age.

Reads and inserts of many rows are single steps of SQLite: each step lets go of the interpreter's lock, and taking it
again costs up to 5 ms while another thread computes.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from streamproc.bus.contract import Span
from streamproc.bus.embedded.schema import OFFSETS
from streamproc.bus.embedded.segments import LARGE_BYTES, Payloads, Segments, Where
from streamproc.bus.embedded.writer import Tx
from streamproc.errors import Corrupt, Expired
from streamproc.wire import Entry, Headers, Stored

ROW_BYTES = 64 * 1024
ROW_RECORDS = 256
READ_ROWS = 64
INSERT_ROWS = 64


class Packed(Struct, frozen=True, array_like=True, gc=False):
    """A record within a row."""

    key: bytes
    headers: Headers
    value: bytes | None
    where: Where | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Packed])
_metas = msgspec.json.Decoder(list[tuple[int, int, int, int]])


class Part(NamedTuple):
    """Where a partition of a topic lies, and what a reader of it needs to know."""

    topic: str
    partition: int
    tp: int
    compacted: bool


class Append:
    """Records on their way into the log, in order. Settled with nothing."""

    def __init__(self, records: Sequence[tuple[Part, Entry]]) -> None:
        self._parts: defaultdict[Part, list[Entry]] = defaultdict(list)
        for part, entry in records:
            self._parts[part].append(entry)
        self.size_bytes = sum(entry.size for _, entry in records) + 128 * len(records)
        self._wheres: dict[int, Where] = {}
        """By the entry's identity; filled by `stow`."""

    def stow(self, segments: Segments) -> None:
        for part, entries in self._parts.items():
            if not part.compacted:
                for entry in entries:
                    if entry.value is not None and len(entry.value) > LARGE_BYTES and id(entry) not in self._wheres:
                        self._wheres[id(entry)] = segments.append(entry.value)

    def apply(self, tx: Tx) -> None:
        for part, entries in self._parts.items():
            size = sum(entry.size for entry in entries)
            # RETURNING is the only way to learn the head that does not race with other processes
            [[head, ts]] = tx.db.execute(
                "UPDATE part SET head = head + ?1, bytes = bytes + ?2, ts = max(ts, ?3) WHERE tp = ?4 RETURNING head, ts",
                (len(entries), size, tx.now_ms, part.tp),
            ).fetchall()
            first = part.tp * OFFSETS + head - len(entries)
            insert(tx.db, [(id_, ts, *row) for id_, row in self._rows(part, entries, first)])
            if used := {self._wheres[id(e)].segment for e in entries if id(e) in self._wheres}:
                tx.db.executemany(
                    "INSERT INTO segment(id, tp, last) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last = excluded.last",
                    [(segment, part.tp, head - 1) for segment in used],
                )

    def _rows(self, part: Part, entries: list[Entry], first: int) -> Iterable[tuple[int, tuple[Any, ...]]]:
        if part.compacted:
            for i, entry in enumerate(entries):
                body = _encoder.encode([Packed(entry.key, entry.headers, entry.value, None)])
                yield first + i, (1, entry.size, entry.key, entry.value is None, body)
            return
        run: list[Packed] = []
        inline = size = 0
        for entry in entries:
            where = self._wheres.get(id(entry))
            packed = Packed(entry.key, entry.headers, None if where else entry.value, where)
            small = len(entry.key) + (0 if where else len(entry.value or b""))
            if run and (inline + small > ROW_BYTES or len(run) >= ROW_RECORDS):
                yield first, (len(run), size, None, False, _encoder.encode(run))
                first += len(run)
                run, inline, size = [], 0, 0
            run.append(packed)
            inline, size = inline + small, size + entry.size
        yield first, (len(run), size, None, False, _encoder.encode(run))


def insert(db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    for i in range(0, len(rows), INSERT_ROWS):
        some = rows[i : i + INSERT_ROWS]
        db.execute(
            f"INSERT INTO log(id, ts, n, bytes, key, gone, body) VALUES {','.join(['(?,?,?,?,?,?,?)'] * len(some))}",
            [field for row in some for field in row],
        )


# reading ------------------------------------------------------------------------------------------------------------


def span(db: sqlite3.Connection, part: Part) -> Span:
    """[begin, end). A partition nobody wrote to has its row from the start, so a missing one is damage."""
    found = db.execute("SELECT tail, head FROM part WHERE tp = ?", (part.tp,)).fetchall()
    if not found:
        raise Corrupt(f"{part.topic}[{part.partition}] has no entry in its table. Put the file back from a copy")
    return Span(*found[0])


class Portion(NamedTuple):
    """How much to read at once."""

    max_records: int
    max_bytes: int
    at_least_one: bool = True
    """However large it is."""


class Page(NamedTuple):
    records: list[Stored]
    next: int
    """Where to go on; behind the last record, and behind what compaction left empty."""


def read(db: sqlite3.Connection, payloads: Payloads, part: Part, offset: int, portion: Portion) -> Page:
    """Records from offset on; Expired where that lies before the beginning."""
    missed: str | None = None
    while True:
        db.execute("BEGIN")  # one snapshot: a trim between two statements would leave a hole that nobody reports
        try:
            begin, end = span(db, part)
            if offset < begin:
                raise Expired(part.topic, part.partition, offset, begin)
            page, gone = _take(db, payloads, part, Span(offset, end), portion)
        finally:
            db.execute("COMMIT")
        if page.records or gone is None:
            return page
        if gone.filename == missed:
            raise Corrupt(
                f"{gone.filename} is missing: it holds {part.topic}[{part.partition}] at offset {offset}. Records elsewhere"
                " are still readable; put the file back from a copy, or read on behind this record"
            ) from gone
        missed = gone.filename  # trimmed after our snapshot? then the next one says Expired


def _take(
    db: sqlite3.Connection, payloads: Payloads, part: Part, wanted: Span, portion: Portion
) -> tuple[Page, FileNotFoundError | None]:
    """As much as the portion takes, or up to a segment that is not there."""
    found: list[Stored] = []
    left_bytes = portion.max_bytes
    low = part.tp * OFFSETS
    rows = min(READ_ROWS, portion.max_records)
    offset, end = wanted
    while offset < end:
        [[said, bodies]] = db.execute(_READ, (low, low + offset, low + end, rows)).fetchall()
        position = 0
        if not (metas := _metas.decode(said)):
            break
        for id_, ts, n, length in metas:
            first = id_ - low
            packed = _decoder.decode(bodies[position : position + length])
            position += length
            for at in range(max(first, offset), first + n):
                record = packed[at - first]
                size = len(record.key) + (record.where.length if record.where else len(record.value or b""))
                enough = len(found) >= portion.max_records or size > left_bytes
                if enough and (found or not portion.at_least_one):
                    return Page(found, at), None
                try:
                    value = payloads.read(record.where) if record.where else record.value
                except FileNotFoundError as e:
                    return Page(found, at), e
                left_bytes -= size
                found.append(
                    Stored(part.topic, part.partition, record.key, value, record.headers, offset=at, time_ms=ts)
                )
            offset = first + n
    return Page(found, end), None


# Many rows in one step; group_concat keeps every byte, NULs too (a test holds it to that). The row that holds the offset
# may begin before it.
_READ = """
SELECT json_group_array(json_array(id, ts, n, length(body))), CAST(group_concat(body, '') AS BLOB) FROM (
    SELECT id, ts, n, body FROM log
    WHERE id >= coalesce((SELECT max(id) FROM log WHERE id >= ?1 AND id <= ?2), ?2) AND id + n > ?2 AND id < ?3
    ORDER BY id LIMIT ?4)
"""


def row_of(db: sqlite3.Connection, part: Part, offset: int) -> int:
    """The first offset of the row that holds `offset`; itself where there is none."""
    low = part.tp * OFFSETS
    [[id_]] = db.execute("SELECT max(id) FROM log WHERE id >= ? AND id <= ?", (low, low + offset)).fetchall()
    return offset if id_ is None else int(id_) - low


def offset_at(db: sqlite3.Connection, part: Part, time_ms: int) -> int:
    """The first offset landed at or after time_ms, by bisection: times grow with offsets, and no index has to be kept."""
    begin, end = span(db, part)
    low = part.tp * OFFSETS
    while begin < end:
        middle = (begin + end) // 2
        row = db.execute(
            "SELECT id, ts FROM log WHERE id >= ? AND id <= ? ORDER BY id DESC LIMIT 1", (low + begin, low + middle)
        ).fetchall()
        if row and row[0][1] >= time_ms:
            end = row[0][0] - low
        elif row and (
            after := db.execute(
                "SELECT min(id) FROM log WHERE id > ? AND id < ?", (low + middle, low + end)
            ).fetchone()[0]
        ):
            begin = after - low
        else:
            begin = end if row else middle + 1
    return begin
