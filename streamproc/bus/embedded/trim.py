"""Retention and compaction: what may go, and its going, a little at a time so that nobody who lands has to wait for it.

Nothing goes that a registered service has yet to read, neither by age nor by size; a service is registered from its first
joining on, whether it runs or not, until it is forgotten.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from streamproc.bus.embedded.log import Part, offset_at, row_of
from streamproc.bus.embedded.schema import OFFSETS
from streamproc.bus.embedded.segments import Segments, sweep
from streamproc.bus.embedded.writer import Plain, Tx

if TYPE_CHECKING:
    from streamproc.bus.embedded.bus import Embedded

CHUNK_ROWS = 500
"""Deleted under the gate in one go: about 10 ms."""
DIRTY_RECORDS = 1000
"""A compacted partition is compacted again after so many more records, unless somebody asks."""
DELETIONS_KEPT_S = 24 * 3600
"""A deletion stays this long, so that followers that were away hear of it."""


class Kept(NamedTuple):
    """A partition as retention sees it."""

    part: Part
    tail: int
    head: int
    clean: int
    hours: float
    held: int
    """The first offset that some registered service has not read; retention stops here."""
    read: int
    """The same of those that ever landed progress; compaction stops here, and would never start for a mere lookup table."""


async def trim(bus: Embedded, *, everything: bool) -> None:
    now_ms = int(bus.clock() * 1000)
    kept = await bus.reader.call(lambda db: _parts(db, bus.partitions))
    for one, upto in await bus.reader.call(lambda db: _expired(db, kept, now_ms, bus.retention_bytes)):
        at = one.tail
        while at < upto:
            at = await bus.writer.do(Plain(partial(cut, tp=one.part.tp, upto=upto)))
    for one in kept:
        if one.part.compacted and (everything or one.head - one.clean >= DIRTY_RECORDS):
            await _compact(bus, one, now_ms)
    if everything:
        await bus.writer.do(Retire())
    await bus.reader.call(lambda db: _sweep(bus, db))


class Retire:
    """Work of the writer: close the active segment, so that it can go once it has expired."""

    size_bytes = 0

    def stow(self, segments: Segments) -> None:
        segments.retire()

    def apply(self, tx: Tx) -> None:
        pass


def _parts(db: sqlite3.Connection, partitions: int) -> list[Kept]:
    rows = db.execute(
        """
        SELECT topic.name, compacted, retention_hours, tp, tail, head, clean, min(coalesce(base, 0)), min(base), service
        FROM part JOIN topic ON topic.id = tp / ?1
        LEFT JOIN reads ON reads.topic = topic.id
        LEFT JOIN lease USING (service)
        LEFT JOIN progress ON progress.lease = lease.id AND progress.topic = reads.topic
        WHERE service IS NULL OR lease.p = tp % ?1
        GROUP BY tp
        """,
        (partitions,),
    ).fetchall()
    return [
        Kept(
            Part(name, tp % partitions, tp, bool(compacted)),
            tail,
            head,
            clean,
            hours,
            held=head if service is None else held,
            read=head if read is None else read,
        )
        for name, compacted, hours, tp, tail, head, clean, held, read, service in rows
    ]


# by age and by size -------------------------------------------------------------------------------------------------


def _expired(
    db: sqlite3.Connection, kept: list[Kept], now_ms: int, retention_bytes: int | None
) -> list[tuple[Kept, int]]:
    """(partition, its new tail) of those that lose something; always at the beginning of a row."""
    upto = {one.part.tp: _by_age(db, one, now_ms) for one in kept}
    if retention_bytes is not None:
        [[total]] = db.execute("SELECT sum(bytes) FROM part").fetchall()
        excess = (total or 0) - retention_bytes
        ages = [_rows(db, one) for one in kept if not one.part.compacted]
        for _, tp, end, size in heapq.merge(*ages):  # the oldest of all partitions first
            if excess <= 0:
                break
            upto[tp] = max(upto[tp], end)
            excess -= size
    return [(one, upto[one.part.tp]) for one in kept if upto[one.part.tp] > one.tail]


def _by_age(db: sqlite3.Connection, one: Kept, now_ms: int) -> int:
    if not one.hours:
        return one.tail
    expired = offset_at(db, one.part, now_ms - int(one.hours * 3_600_000))
    upto = min(expired, one.held)
    return upto if upto >= one.head else row_of(db, one.part, upto)


def _rows(db: sqlite3.Connection, one: Kept) -> Iterator[tuple[int, int, int, int]]:
    """(time, partition, offset behind, bytes) of each row that nobody has yet to read, from the oldest on."""
    low = one.part.tp * OFFSETS
    at = one.tail
    while rows := db.execute(
        "SELECT id, ts, n, bytes FROM log WHERE id >= ?1 AND id < ?2 AND id + n <= ?2 ORDER BY id LIMIT ?3",
        (low + at, low + one.held, CHUNK_ROWS),
    ).fetchall():
        for id_, ts, n, size in rows:
            at = id_ - low + n
            yield ts, one.part.tp, at, size


def cut(tx: Tx, tp: int, upto: int) -> int:
    """Take rows off the beginning; the new tail."""
    low = tp * OFFSETS
    [[tail]] = tx.db.execute("SELECT tail FROM part WHERE tp = ?", (tp,)).fetchall()
    if tail >= upto:  # another process trims too
        return int(tail)
    beyond = tx.db.execute(
        "SELECT id FROM log WHERE id >= ? AND id < ? ORDER BY id LIMIT 1 OFFSET ?", (low + tail, low + upto, CHUNK_ROWS)
    ).fetchall()
    end = beyond[0][0] - low if beyond else upto
    [[size]] = tx.db.execute(
        "SELECT coalesce(sum(bytes), 0) FROM log WHERE id >= ? AND id < ?", (low + tail, low + end)
    ).fetchall()
    tx.db.execute("DELETE FROM log WHERE id >= ? AND id < ?", (low + tail, low + end))
    tx.db.execute("UPDATE part SET tail = ?, bytes = bytes - ? WHERE tp = ?", (end, size, tp))
    tx.db.execute("DELETE FROM segment WHERE tp = ? AND last < ?", (tp, end))
    return int(end)


# compaction ---------------------------------------------------------------------------------------------------------


async def _compact(bus: Embedded, one: Kept, now_ms: int) -> None:
    low = one.part.tp * OFFSETS
    oldest_ms = now_ms - DELETIONS_KEPT_S * 1000

    def superseded(db: sqlite3.Connection) -> list[int]:
        rows = db.execute(
            "SELECT id FROM (SELECT id, gone, ts, row_number() OVER (PARTITION BY key ORDER BY id DESC) AS age"
            " FROM log WHERE id >= ? AND id < ?) WHERE (age > 1 OR (gone AND ts < ?)) AND id < ? ORDER BY id",
            (low, low + one.head, oldest_ms, low + one.read),
        ).fetchall()
        return [id_ for (id_,) in rows]

    # What is superseded stays so, whatever lands meanwhile. Oldest first: a deletion goes only after what it deletes.
    ids = await bus.reader.call(superseded)
    for i in range(0, len(ids), CHUNK_ROWS):
        await bus.writer.do(Plain(partial(_drop, tp=one.part.tp, ids=ids[i : i + CHUNK_ROWS])))
    await bus.writer.do(
        Plain(lambda tx: tx.db.execute("UPDATE part SET clean = ? WHERE tp = ?", (one.head, one.part.tp)))
    )


def _drop(tx: Tx, tp: int, ids: list[int]) -> None:
    sizes = tx.db.execute(f"DELETE FROM log WHERE id IN ({','.join('?' * len(ids))}) RETURNING bytes", ids).fetchall()
    tx.db.execute("UPDATE part SET bytes = bytes - ? WHERE tp = ?", (sum(size for (size,) in sizes), tp))


def _sweep(bus: Embedded, db: sqlite3.Connection) -> None:
    sweep(
        bus.place.segments,
        lambda segment: bool(db.execute("SELECT 1 FROM segment WHERE id = ? LIMIT 1", (segment,)).fetchall()),
    )
    bus.payloads.forget_removed()
