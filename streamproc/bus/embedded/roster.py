"""Members, owners and what is assigned to whom: the rows, and the few ways in which they change. All within the writer.

The member with the lowest id among the living assigns partitions; all others follow. So weights, which every member sees
a little differently, never make two of them disagree.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from streamproc.bus.embedded.presence import Standing
from streamproc.bus.spread import spread


class Member(NamedTuple):
    id: int
    process: int
    leaving: bool
    pid: int

    @property
    def name(self) -> str:
        """Sorts as the id does."""
        return f"{self.id:08}.{self.pid}"


class Owned(NamedTuple):
    """A lease's row."""

    id: int
    partition: int
    epoch: int
    owner: int | None
    assigned: int | None


class Roster(NamedTuple):
    members: list[Member]
    leases: list[Owned]

    def working(self, standing: Callable[[int], Standing]) -> list[Member]:
        """Those who take leases."""
        return [m for m in self.members if not m.leaving and standing(m.process) == "alive"]

    def owner(self, lease: Owned) -> Member | None:
        return next((m for m in self.members if m.id == lease.owner), None)

    def takeable(self, lease: Owned, member: int, standing: Callable[[int], Standing]) -> bool:
        """Released, or its owner is dead or has stopped; or ours by the rows though we do not hold it (an error between)."""
        owner = self.owner(lease)
        return owner is None or owner.id == member or standing(owner.process) != "alive"


def load(db: sqlite3.Connection, service: str) -> Roster:
    members = db.execute(
        "SELECT member.id, process, leaving, pid FROM member JOIN process ON process.id = process"
        " WHERE service = ? ORDER BY member.id",
        (service,),
    ).fetchall()
    leases = db.execute(
        "SELECT id, p, epoch, owner, assigned FROM lease WHERE service = ? ORDER BY p", (service,)
    ).fetchall()
    return Roster([Member(i, p, bool(leaving), pid) for i, p, leaving, pid in members], [Owned(*row) for row in leases])


def join(db: sqlite3.Connection, *, process: int, service: str, topics: Collection[int], partitions: int) -> int:
    """A new member's id. What the service reads, retention holds from now on."""
    [[member]] = db.execute(
        "INSERT INTO member(process, service) VALUES (?, ?) RETURNING id", (process, service)
    ).fetchall()
    db.executemany(
        "INSERT INTO lease(service, p) VALUES (?, ?) ON CONFLICT DO NOTHING", [(service, p) for p in range(partitions)]
    )
    [[others]] = db.execute("SELECT count(*) FROM member WHERE service = ? AND id != ?", (service, member)).fetchall()
    if not others:  # what an older version of it read, it may read no more; one that still runs does
        db.execute("DELETE FROM reads WHERE service = ?", (service,))
    db.executemany(
        "INSERT INTO reads(service, topic) VALUES (?, ?) ON CONFLICT DO NOTHING", [(service, t) for t in topics]
    )
    _changed(db)
    return int(member)


def leave(db: sqlite3.Connection, member: int) -> None:
    """No more leases for this one; the next leader gives them to others, who wait until they are released."""
    db.execute("UPDATE member SET leaving = 1 WHERE id = ?", (member,))
    _changed(db)


def part(db: sqlite3.Connection, member: int) -> None:
    """Gone for good; what it still held is free."""
    db.execute("UPDATE lease SET owner = NULL, epoch = epoch + 1 WHERE owner = ?", (member,))
    db.execute("DELETE FROM member WHERE id = ?", (member,))
    _changed(db)


def end(db: sqlite3.Connection, process: int) -> None:
    """All memberships of a process that goes."""
    for (member,) in db.execute("SELECT id FROM member WHERE process = ?", (process,)).fetchall():
        part(db, member)
    db.execute("DELETE FROM process WHERE id = ?", (process,))


def services(db: sqlite3.Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT DISTINCT service FROM lease ORDER BY service").fetchall()]


def forget(db: sqlite3.Connection, service: str) -> None:
    for table in ("state", "progress"):
        db.execute(f"DELETE FROM {table} WHERE lease IN (SELECT id FROM lease WHERE service = ?)", (service,))
    for table in ("lease", "reads", "member"):
        db.execute(f"DELETE FROM {table} WHERE service = ?", (service,))
    _changed(db)


def assign(
    db: sqlite3.Connection, service: str, *, member: int, weights: Sequence[int], standing: Callable[[int], Standing]
) -> None:
    """The leader's part. What it saw before may have changed, so it looks again, here under the gate."""
    roster = load(db, service)
    working = roster.working(standing)
    if not working or working[0].id != member:
        return
    held: dict[str, list[int]] = {m.name: [] for m in working}
    names = {m.id: m.name for m in working}
    for lease in roster.leases:
        # Where the one who was to have it is gone, its owner may keep it: it may not have begun to hand it over.
        holder = lease.assigned if lease.assigned in names else lease.owner
        if holder in names:
            held[names[holder]].append(lease.partition)
    ids = {m.name: m.id for m in working}
    to = {p: ids[name] for name, partitions in spread(held, weights).items() for p in partitions}
    moved = [(to[lease.partition], lease.id) for lease in roster.leases if lease.assigned != to[lease.partition]]
    gone = [(m.process,) for m in roster.members if standing(m.process) == "gone"]
    if moved or gone:
        db.executemany("UPDATE lease SET assigned = ? WHERE id = ?", moved)
        db.executemany("DELETE FROM member WHERE process = ?", gone)
        db.executemany("DELETE FROM process WHERE id = ?", gone)
        _changed(db)


def take(
    db: sqlite3.Connection, service: str, *, lease: Owned, member: int, standing: Callable[[int], Standing]
) -> int | None:
    """The new epoch; None where it is not ours to take. Looked at again, here under the gate: an owner may have come back."""
    roster = load(db, service)
    now = next((row for row in roster.leases if row.id == lease.id), None)  # None: the service was forgotten
    if now is None or now.assigned != member or now.epoch != lease.epoch:
        return None
    if not roster.takeable(now, member, standing):
        return None
    return _own(db, lease.id, member)


def renew(db: sqlite3.Connection, lease: int, *, member: int, epoch: int) -> int | None:
    """The new epoch; None where the lease has another owner by now."""
    found = db.execute(
        "SELECT 1 FROM lease WHERE id = ? AND owner = ? AND epoch = ?", (lease, member, epoch)
    ).fetchall()
    return _own(db, lease, member) if found else None


def release(db: sqlite3.Connection, lease: int, epoch: int) -> None:
    db.execute("UPDATE lease SET owner = NULL, epoch = epoch + 1 WHERE id = ? AND epoch = ?", (lease, epoch))
    _changed(db)


def _own(db: sqlite3.Connection, lease: int, member: int) -> int:
    [[epoch]] = db.execute(
        "UPDATE lease SET epoch = epoch + 1, owner = ? WHERE id = ? RETURNING epoch", (member, lease)
    ).fetchall()
    _changed(db)
    return int(epoch)


def _changed(db: sqlite3.Connection) -> None:
    db.execute("UPDATE bus SET roster = roster + 1")
