"""The database: its tables, its pragmas, its version, and what its errors mean. One connection belongs to one thread."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path

from streamproc.bus.embedded.gate import blocked, holders
from streamproc.errors import Corrupt, DiskFull, Misconfigured, NewerState, StreamprocError, UnseenEnd

APPLICATION = 0x73747270  # 'strp'
VERSION = 1

OFFSET_BITS = 40
"""A row's id is topic-partition << 40 | offset of its first record: one clustered tree, no index, appends at the right edge."""
OFFSETS = 1 << OFFSET_BITS

TABLES = """
CREATE TABLE bus(id INTEGER PRIMARY KEY CHECK (id = 1), identity TEXT NOT NULL, partitions INTEGER NOT NULL,
    commits INTEGER NOT NULL DEFAULT 0,     -- transactions so far: what the mark beside the file is held against
    roster INTEGER NOT NULL DEFAULT 0,      -- grows whenever members or owners change: what members listen to
    trimmed_ms INTEGER NOT NULL DEFAULT 0);
CREATE TABLE topic(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, compacted INTEGER NOT NULL,
    retention_hours REAL NOT NULL, max_bytes INTEGER NOT NULL);
CREATE TABLE part(tp INTEGER PRIMARY KEY,   -- topic * partitions + partition
    head INTEGER NOT NULL DEFAULT 0,        -- the next offset
    tail INTEGER NOT NULL DEFAULT 0,        -- the first readable one
    bytes INTEGER NOT NULL DEFAULT 0,
    ts INTEGER NOT NULL DEFAULT 0,          -- of the last landing; never falls, whatever the clock does
    clean INTEGER NOT NULL DEFAULT 0);      -- compacted up to here
CREATE TABLE log(id INTEGER PRIMARY KEY, ts INTEGER NOT NULL, n INTEGER NOT NULL, bytes INTEGER NOT NULL,
    key BLOB,                               -- in compacted topics, where a row is one record
    gone INTEGER NOT NULL,                  -- that record deletes its key
    body BLOB NOT NULL);
CREATE TABLE segment(id INTEGER NOT NULL, tp INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (id, tp)) WITHOUT ROWID;
CREATE TABLE process(id INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL);
CREATE TABLE member(id INTEGER PRIMARY KEY AUTOINCREMENT, process INTEGER NOT NULL, service TEXT NOT NULL,
    leaving INTEGER NOT NULL DEFAULT 0);
CREATE TABLE reads(service TEXT NOT NULL, topic INTEGER NOT NULL, PRIMARY KEY (service, topic)) WITHOUT ROWID;
CREATE TABLE lease(id INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL, p INTEGER NOT NULL,
    -- ids never come again: a zombie of a service that was forgotten must not pass for its successor
    epoch INTEGER NOT NULL DEFAULT 0,       -- grows with every owner: a landing names the one it was taken under
    owner INTEGER,                          -- a member
    assigned INTEGER,                       -- the member that should have it
    serial INTEGER NOT NULL DEFAULT 0, UNIQUE (service, p));
CREATE TABLE progress(lease INTEGER NOT NULL, topic INTEGER NOT NULL, base INTEGER NOT NULL,
    PRIMARY KEY (lease, topic)) WITHOUT ROWID;
CREATE TABLE state(lease INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (lease, key)) WITHOUT ROWID;
"""


def connect(path: Path, *, busy_s: float) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, cached_statements=256)
    for pragma in (
        "synchronous=NORMAL",
        "wal_autocheckpoint=0",
        "secure_delete=OFF",
        "cell_size_check=ON",
        "mmap_size=0",
        "fullfsync=ON",
    ):
        db.execute(f"PRAGMA {pragma}")
    db.execute(f"PRAGMA journal_size_limit={16 * 2**20}")
    return db


def empty(db: sqlite3.Connection) -> bool:
    """Nothing in it: new, or killed while it was made."""
    return not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()


def create(db: sqlite3.Connection, *, partitions: int) -> None:
    db.execute("PRAGMA page_size=4096")
    db.execute("PRAGMA auto_vacuum=NONE")
    db.execute("PRAGMA journal_mode=WAL")
    identity = uuid.uuid4().hex
    db.executescript(
        f"BEGIN; {TABLES}; PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION};"
        f"INSERT INTO bus(id, identity, partitions) VALUES (1, '{identity}', {partitions}); COMMIT;"
    )
    # from here on the file says by itself what it is, also where its WAL got lost
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def check(db: sqlite3.Connection, path: Path, *, partitions: int | None) -> tuple[str, int, int]:
    """What was opened is a bus of ours: its identity, partitions and commits."""
    [application] = db.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION:
        raise Misconfigured(f"{path} is a SQLite database, but no bus of streamproc. Name another file")
    [version] = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise NewerState(
            f"{path} has schema {version}, this version knows {VERSION}. Use the streamproc that wrote it, or a newer one"
        )
    if version < VERSION:
        raise Misconfigured(
            f"{path} has schema {version}, from before the first release; there is no way from it to {VERSION}"
        )
    identity, there, commits = db.execute("SELECT identity, partitions, commits FROM bus").fetchone()
    if partitions is not None and partitions != there:
        raise Misconfigured(
            f"{path} has {there} partitions, not {partitions}. Their number is fixed for life: leave it out, or begin another file"
        )
    return identity, there, commits


def meant(e: sqlite3.Error, path: Path, *, waited_s: float) -> StreamprocError:
    """An error of SQLite as one of ours."""
    code = (getattr(e, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"the disk of {path} is full. Nothing was written; make room, and landing goes on")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        shm = path.with_name(path.name + "-shm")
        return blocked(shm if holders(shm) else path, waited_s)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(
            f"{path} is damaged ({e}). Its other rows may still be readable: `sqlite3 {path} .recover`, or put a copy back"
        )
    if code == sqlite3.SQLITE_IOERR:
        return UnseenEnd(f"the disk of {path} failed ({e}): a landing may or may not have happened")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return Misconfigured(f"{path} cannot be opened for writing ({e}). Check the path and its permissions")
    return Corrupt(f"{path}: SQLite refuses what it never should ({e})")
