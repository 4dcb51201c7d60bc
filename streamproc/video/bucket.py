"""An object store as a room for files. Blocking, for threads and processes of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamproc.objectstore import Opening

PART_BYTES, AT_ONCE = 8 * 2**20, 2
"""Of a file on its way, in memory."""


@dataclass(frozen=True, slots=True)
class Stored:
    key: str
    """Below the bucket's own prefix."""
    size_bytes: int
    put_s: float
    """When, by the store's clock."""


class Bucket:
    """`s3://bucket/prefix`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._objects = Opening(self.url, what="footage in", within_s=300)  # of a whole segment

    def below(self, folder: str) -> list[Stored]:
        with self._objects.mapped() as (obstore, store):
            pages = obstore.list(store, prefix=folder, chunk_size=1000)
            return [
                Stored(one["path"], one["size"], one["last_modified"].timestamp()) for page in pages for one in page
            ]

    def put(self, key: str, file: Path) -> None:
        """It is there whole, or it is not. Raises FileNotFoundError where the file is gone."""
        with file.open("rb") as body, self._objects.mapped() as (obstore, store):
            obstore.put(store, key, body, chunk_size=PART_BYTES, max_concurrency=AT_ONCE)

    def fetch(self, key: str, file: Path) -> bool:
        """False where the store answers, and there is no such object."""
        with self._objects.mapped() as (obstore, store):
            try:
                found = obstore.get(store, key)
            except (FileNotFoundError, obstore.exceptions.NotFoundError):
                self.below(key)  # fails where the bucket itself is not there
                return False
            with file.open("wb") as out:
                for part in found.stream(min_chunk_size=PART_BYTES):
                    out.write(part)
        return True

    def remove(self, keys: list[str]) -> None:
        """Those that are not there are removed already."""
        with self._objects.mapped() as (obstore, store):
            if keys:
                obstore.delete(store, keys)
