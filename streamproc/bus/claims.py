"""Claim checks: a payload larger than its topic allows lies in a store, and a small claim travels in its place.

A payload's name in the store is its digest, so putting it twice is harmless, and whatever comes back is checked. Put
before the claim lands, it can only be missing because it was swept: sweep nothing that a record which is still there may
speak of (`pipeline.sweeping`). No bus is known here; whoever publishes checks in, whoever reads checks out.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec.structs import replace

from streamproc.errors import DiskFull, Misconfigured, Rejected, TooLarge, Unparseable, Unreachable
from streamproc.objectstore import Opening
from streamproc.topics import topic
from streamproc.wire import Entry, Stored

CLAIM, DIGEST, SIZE = "claim", "claim-sha256", "claim-bytes"


class Store(Protocol):
    """A room for bytes by name. What is put is there whole or not at all; putting again renews its age."""

    uri: str

    async def put(self, name: str, payload: bytes) -> None: ...

    async def get(self, name: str) -> bytes | None:
        """None where the store answers, and there is no such payload."""


class Claims:
    """Checks payloads in and out. Without a store a payload that is too large is rejected."""

    def __init__(self, store: Store | None, *, threshold_bytes: int | None = None) -> None:
        self._store, self._threshold = store, threshold_bytes

    @property
    def takes_any_size(self) -> bool:
        """There is a store."""
        return self._store is not None

    @property
    def grows(self) -> bool:
        """Nothing ever leaves the store but by `sweep`: it is a folder. A bucket has a rule of its own for what is old."""
        return isinstance(self._store, Folder)

    def limit(self, max_bytes: int) -> int:
        """What is larger is checked in: than `max_bytes`, or, where there is a store, than the threshold for all topics."""
        return min(max_bytes, self._threshold or max_bytes) if self._store else max_bytes

    async def check_in(self, entry: Entry, max_bytes: int) -> Entry:
        """The entry, or a claim to it where it is larger than the limit. A row of a table stays for ever, and is read by those
        who know of no store: the threshold is not for it."""
        limit = max_bytes if topic(entry.topic).compacted else self.limit(max_bytes)
        if entry.value is None or entry.size <= limit:
            return entry
        if self._store is None:
            raise TooLarge(
                f"{entry.topic}: larger than the {max_bytes} bytes that a record may have there, and there is no store "
                "for claim checks (setting claims.store)"
            )
        digest = await asyncio.to_thread(_digest, entry.value)
        await self._store.put(_name(digest), entry.value)
        size, uri = len(entry.value), f"{self._store.uri}/{_name(digest)}"
        claim = msgspec.json.encode({CLAIM: uri, "sha256": digest, "bytes": size})
        headers = ((CLAIM, uri.encode()), (DIGEST, digest.encode()), (SIZE, str(size).encode()))
        return replace(entry, value=claim, headers=(*entry.headers, *headers))

    async def check_out(self, stored: Stored) -> Stored:
        """The record as it was checked in; records that are no claim come back as they are."""
        claim = stored.header(CLAIM)
        if claim is None:
            return stored
        uri = claim.decode(errors="replace")
        digest = (stored.header(DIGEST) or b"").decode(errors="replace")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise Unparseable(f"claim to '{uri}' without a digest to check it by (header {DIGEST})")
        if self._store is None:
            raise Unreachable(
                "claim store",
                f"'{uri}' is wanted, and this process has no store",
                remedy="Set claims.store as the writer did.",
            )
        payload = await self._store.get(_name(digest))  # by digest: the same payload, wherever the store has moved to
        if payload is None:
            raise Rejected(f"claim to '{uri}': there is no such payload in {self._store.uri} any more")
        if await asyncio.to_thread(_digest, payload) != digest:
            raise Rejected(f"claim to '{uri}': what lies there is not what was checked in ({digest[:12]}…)")
        headers = tuple(h for h in stored.headers if h[0] not in (CLAIM, DIGEST, SIZE))
        return replace(stored, value=payload, headers=headers)

    async def sweep(self, older_than_s: float) -> int:
        """Remove payloads put longer ago than this, where the store grows; how many that were."""
        return await self._store.sweep(older_than_s) if isinstance(self._store, Folder) else 0


def open_store(where: str) -> Store:
    """A folder, or `s3://bucket/prefix` (extra `s3`; credentials and endpoint as AWS's own tools read them)."""
    scheme, _, _ = where.partition("://")
    if scheme == "s3":
        return Bucket(where)
    if scheme == "file":
        return Folder(Path(unquote(urlsplit(where).path)))
    if "://" in where:
        raise Misconfigured(f"claims.store '{where}' is neither a folder nor s3://bucket/prefix")
    return Folder(Path(where).expanduser())


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def _name(digest: str) -> str:
    return f"{digest[:2]}/{digest}"


_OURS = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.\d+\.[0-9a-f]{8}")
"""Files of a folder: payloads, and such as are being written. Whatever else somebody keeps there is his."""


# a folder -----------------------------------------------------------------------------------------------------------


class Folder:
    """Payloads as files. Across machines it has to be the same folder under whatever path."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self._path, self._now = path.resolve(), now
        self.uri = self._path.as_uri()

    async def put(self, name: str, payload: bytes) -> None:
        await asyncio.to_thread(self._put, name, payload)

    async def get(self, name: str) -> bytes | None:
        return await asyncio.to_thread(self._get, name)

    async def sweep(self, older_than_s: float) -> int:
        """Remove what was put longer ago; how many that were."""
        return await asyncio.to_thread(self._sweep, self._now() - older_than_s)

    def _put(self, name: str, payload: bytes) -> None:
        """Written aside and renamed, also where the file is there already: that renews its age."""
        target = self._path / name
        aside = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with self._mapped():
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.parent, fcntl.LOCK_SH) as folder:
                try:
                    with aside.open("xb") as file:
                        file.write(payload)
                        file.flush()
                        os.fsync(file.fileno())
                    os.utime(aside, (self._now(), self._now()))
                    aside.rename(target)
                except BaseException:
                    with suppress(OSError):  # the error under way tells more
                        aside.unlink(missing_ok=True)
                    raise
                os.fsync(folder)  # a rename is durable once the folder is

    def _get(self, name: str) -> bytes | None:
        with self._mapped():
            try:
                return (self._path / name).read_bytes()
            except FileNotFoundError:
                self._path.stat()  # a store that is not mounted is another matter than a payload that is gone
                return None

    def _sweep(self, before: float) -> int:
        swept = 0
        with self._mapped():
            for folder in self._path.glob("[0-9a-f][0-9a-f]/"):
                with _locked(folder, fcntl.LOCK_EX):  # or a payload put anew between the look and the removal were lost
                    ours = [file for file in folder.iterdir() if _OURS.fullmatch(file.name)]
                    old = [file for file in ours if file.stat().st_mtime < before]
                    for file in old:
                        file.unlink()
                    swept += sum(not file.name.startswith(".") for file in old)  # the others are of writers that died
        return swept

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"claim store {self.uri}: {e.strerror}") from e
            raise Unreachable(
                f"claim store {self.uri}",
                str(e.strerror or e),
                remedy="See that the folder is there and may be written.",
            ) from e


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[int]:
    """Hold a folder against sweepers (or, as a sweeper, against writers); its descriptor."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


# an object store ----------------------------------------------------------------------------------------------------


class Bucket:
    """Payloads as objects. They expire by a rule of the bucket's own."""

    def __init__(self, url: str) -> None:
        self.uri = url.rstrip("/")
        self._objects = Opening(self.uri, what="claim store", within_s=30)

    async def put(self, name: str, payload: bytes) -> None:
        with self._objects.mapped() as (obstore, store):
            await obstore.put_async(store, name, payload)

    async def get(self, name: str) -> bytes | None:
        with self._objects.mapped() as (obstore, store):
            try:
                found = await obstore.get_async(store, name)
                return bytes(await found.bytes_async())
            except (
                FileNotFoundError,
                obstore.exceptions.NotFoundError,
            ):  # obstore raises the first, documents the second
                await obstore.list_with_delimiter_async(store)  # fails where the bucket itself is not there
                return None
