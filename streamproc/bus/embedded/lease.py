"""A lease of the embedded bus: an epoch in a row. A landing names the epoch it was taken under, and so is whole or nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streamproc.bus.contract import Landing
from streamproc.bus.embedded import roster
from streamproc.bus.embedded.log import Append, Part, Portion, read, span
from streamproc.bus.embedded.segments import Segments
from streamproc.bus.embedded.writer import Plain, Tx
from streamproc.bus.wanted import Wanted
from streamproc.errors import Expired, Fenced, UnseenEnd
from streamproc.wire import Stored

if TYPE_CHECKING:
    from streamproc.bus.embedded.bus import Embedded

UPSERT_ROWS = 64


class Loaded(NamedTuple):
    """What had landed under a lease when it was taken."""

    serial: int
    state: dict[str, bytes]
    progress: dict[str, int]
    at: dict[int, int]
    """Topic-partition → where reading begins: at the progress, else at the beginning of what is there."""


class EmbeddedLease:
    def __init__(
        self,
        bus: Embedded,
        service: str,
        partition: int,
        *,
        id_: int,
        epoch: int,
        member: int,
        parts: list[Part],
        loaded: Loaded,
    ) -> None:
        self.service, self.partition = service, partition
        self.wanted, self.lost = Wanted(), asyncio.Event()
        self.id, self.epoch, self.member = id_, epoch, member
        self._bus, self._parts = bus, {part.tp: part for part in parts}
        self._at = dict(loaded.at)
        self._turn = 0
        self._settle(loaded)
        bus.heads.watch(self._at)

    def _settle(self, loaded: Loaded) -> None:
        self.serial = loaded.serial
        self.state: Mapping[str, bytes] = loaded.state
        self.progress: Mapping[str, int] = loaded.progress

    def forget_state(self) -> None:
        self.state = {}

    def fresh(self) -> bool:
        return not self.lost.is_set() and self._bus.presence.fresh()

    # reading --------------------------------------------------------------------------------------------------------

    async def fetch(self, *, max_records: int, max_bytes: int, wait_s: float) -> list[Stored]:
        heads = self._bus.heads
        give_up, looked = asyncio.get_running_loop().time() + wait_s, False
        while True:
            self._check()
            if ready := heads.ahead(self._at):
                found, at = await self._bus.reader.call(lambda db: self._read(db, ready, max_records, max_bytes))
                self._at |= at  # only now, with nothing awaited behind it: a fetch cancelled before has moved nothing
                if isinstance(found, Expired):
                    raise found
                if found:
                    return found
            left_s = give_up - asyncio.get_running_loop().time()
            if left_s > 0:
                await heads.beyond(self._at, wait_s=left_s)
            elif looked:
                return []
            else:  # news may be on its way: empty-handed only after a look of our own
                await heads.look()
                looked = True

    def _read(
        self, db: sqlite3.Connection, ready: list[int], max_records: int, max_bytes: int
    ) -> tuple[list[Stored] | Expired, dict[int, int]]:
        """On the reading thread. Each topic its share, another one first each time; then what is left to whoever has more."""
        self._turn += 1
        order = sorted(ready)
        order = order[self._turn % len(order) :] + order[: self._turn % len(order)]
        found: list[Stored] = []
        at = {tp: self._at[tp] for tp in order}
        left_bytes = max_bytes
        for share in sorted({max(1, max_records // len(order)), max_records}):
            for tp in order:
                records = min(share, max_records - len(found))
                if records <= 0 or (found and left_bytes <= 0):
                    return found, at
                budget = left_bytes if share == max_records else min(left_bytes, max_bytes // len(order))
                part, payloads = self._parts[tp], self._bus.payloads
                portion = Portion(records, budget, at_least_one=not found)
                try:
                    some, at[tp] = read(db, payloads, part, at[tp], portion)
                except Expired as e:
                    if found:  # these first; the hole is still there next time
                        return found, at
                    return e, {tp: e.begin}
                found += some
                left_bytes -= sum(record.size for record in some)
        return found, at

    # landing --------------------------------------------------------------------------------------------------------

    async def land(self, landing: Landing) -> None:
        self._check()
        try:
            await self._bus.writer.do(await self._bus.landing(self, landing))
        except Fenced:
            self.lose()
            raise
        self.serial = landing.serial

    async def renew(self) -> None:
        self._check()
        epoch = await self._bus.writer.do(
            Plain(lambda tx: roster.renew(tx.db, self.id, member=self.member, epoch=self.epoch))
        )
        if epoch is None:
            self.lose()
            self._check()
        self.epoch = epoch
        parts, prefix = list(self._parts.values()), self._bus.catalog.prefix
        self._settle(await self._bus.reader.call(lambda db: load(db, self.id, parts, prefix=prefix)))

    async def release(self) -> None:
        if not self.lost.is_set():
            epoch = self.epoch
            self.lose()
            await self._bus.writer.do(Plain(lambda tx: roster.release(tx.db, self.id, epoch)))

    def lose(self) -> None:
        """No longer ours, whether another took it or it is given back."""
        if not self.lost.is_set():
            self.lost.set()
            self._bus.heads.unwatch(self._at)

    def _check(self) -> None:
        self._bus.heads.check()
        if self.lost.is_set():
            raise Fenced(f"{self.service}[{self.partition}] has another owner by now, or was released")


class LeaseLanding:
    """A landing as work of the writer."""

    def __init__(self, lease: EmbeddedLease, landing: Landing, append: Append, topics: Mapping[str, int]) -> None:
        self._id, self._epoch, self._service, self._partition = lease.id, lease.epoch, lease.service, lease.partition
        self._landing, self._append, self._topics = landing, append, topics
        self.size_bytes = append.size_bytes + sum(len(k) + len(v or b"") for k, v in landing.state.items()) + 256

    def stow(self, segments: Segments) -> None:
        self._append.stow(segments)

    def apply(self, tx: Tx) -> None:
        db, landing = tx.db, self._landing
        [[epoch, serial]] = db.execute("SELECT epoch, serial FROM lease WHERE id = ?", (self._id,)).fetchall() or [
            [0, 0]
        ]
        if epoch != self._epoch:
            raise Fenced(f"{self._service}[{self._partition}] has another owner by now; nothing landed")
        if landing.serial != serial + 1:  # its owner was cancelled while it landed the one before
            raise UnseenEnd(
                f"{self._service}[{self._partition}]: landing {landing.serial} after {serial}; nothing landed."
                " Renew the lease and read its serial"
            )
        db.execute("UPDATE lease SET serial = ? WHERE id = ?", (landing.serial, self._id))
        self._append.apply(tx)
        if landing.state:
            self._keep(db)
        if landing.progress:
            bases = {str(self._topics[topic]): base for topic, base in landing.progress.items()}
            db.execute(
                "INSERT OR REPLACE INTO progress(lease, topic, base) SELECT ?, CAST(key AS INTEGER), value FROM json_each(?)",
                (self._id, msgspec.json.encode(bases).decode()),
            )

    def _keep(self, db: sqlite3.Connection) -> None:
        # keys as bytes: SQLite's own functions end a text at its first NUL, and keys have one
        kept = [(self._id, key.encode(), value) for key, value in self._landing.state.items() if value is not None]
        for i in range(0, len(kept), UPSERT_ROWS):
            some = kept[i : i + UPSERT_ROWS]
            db.execute(
                f"INSERT OR REPLACE INTO state(lease, key, value) VALUES {','.join(['(?,?,?)'] * len(some))}",
                [field for row in some for field in row],
            )
        dropped = [key.encode() for key, value in self._landing.state.items() if value is None]
        for i in range(0, len(dropped), UPSERT_ROWS):
            gone = dropped[i : i + UPSERT_ROWS]
            db.execute(f"DELETE FROM state WHERE lease = ? AND key IN ({','.join('?' * len(gone))})", [self._id, *gone])


def load(db: sqlite3.Connection, lease: int, parts: Iterable[Part], *, prefix: str) -> Loaded:
    """What landed under a lease that is ours: nobody else can change it while we read."""
    found = db.execute("SELECT serial FROM lease WHERE id = ?", (lease,)).fetchall()
    if not found:
        raise Fenced("the service was forgotten while we were stopped")
    [[serial]] = found
    state = db.execute("SELECT key, value FROM state WHERE lease = ?", (lease,)).fetchall()
    bases = db.execute("SELECT name, base FROM progress JOIN topic ON id = topic WHERE lease = ?", (lease,)).fetchall()
    progress = {name.removeprefix(prefix): base for name, base in bases}
    at = {part.tp: progress.get(part.topic, span(db, part).begin) for part in parts}
    return Loaded(serial, {key.decode(): value for key, value in state}, progress, at)
