"""An object store as a room for files: S3, and whatever speaks as it does (extra `s3`). Blocking, for threads and processes
of their own. Credentials and endpoint are read as AWS's own tools read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamproc.errors import Misconfigured, Unreachable

if TYPE_CHECKING:
    from obstore.store import S3Store

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
        self._opened: S3Store | None = None

    def below(self, folder: str) -> list[Stored]:
        with self._mapped() as obstore:
            pages = obstore.list(self._store(), prefix=folder, chunk_size=1000)
            return [
                Stored(one["path"], one["size"], one["last_modified"].timestamp()) for page in pages for one in page
            ]

    def put(self, key: str, file: Path) -> None:
        """It is there whole, or it is not. Raises FileNotFoundError where the file is gone."""
        with file.open("rb") as body, self._mapped() as obstore:
            obstore.put(self._store(), key, body, chunk_size=PART_BYTES, max_concurrency=AT_ONCE)

    def fetch(self, key: str, file: Path) -> bool:
        """False where the store answers, and there is no such object."""
        with self._mapped() as obstore:
            try:
                found = obstore.get(self._store(), key)
            except (FileNotFoundError, obstore.exceptions.NotFoundError):
                self.below(key)  # fails where the bucket itself is not there
                return False
            with file.open("wb") as out:
                for part in found.stream(min_chunk_size=PART_BYTES):
                    out.write(part)
        return True

    def remove(self, keys: list[str]) -> None:
        """Those that are not there are removed already."""
        with self._mapped() as obstore:
            if keys:
                obstore.delete(self._store(), keys)

    def _store(self) -> S3Store:
        if self._opened is None:
            from obstore.store import S3Store

            self._opened = S3Store.from_url(
                self.url,
                client_options={
                    "timeout": timedelta(minutes=5),  # of a whole segment
                    "connect_timeout": timedelta(seconds=5),
                    "allow_http": True,  # who names an http:// endpoint means it
                },
                retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
            )
        return self._opened

    @contextmanager
    def _mapped(self) -> Iterator[Any]:
        """`Any`: the module of an extra that need not be installed."""
        try:
            import obstore
            import obstore.exceptions
        except ImportError as e:
            raise Misconfigured(f"footage in {self.url} needs: pip install 'streamproc[s3]'") from e
        try:
            yield obstore
        except (obstore.exceptions.InvalidPathError, obstore.exceptions.UnknownConfigurationKeyError) as e:
            raise Misconfigured(f"footage in {self.url}: {_first_line(e)}") from e
        except (obstore.exceptions.BaseError, OSError) as e:
            remedy = "See that the bucket is there, and AWS_ENDPOINT_URL, AWS_REGION and the credentials fit."
            raise Unreachable(f"footage in {self.url}", _first_line(e), remedy=remedy) from e


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
