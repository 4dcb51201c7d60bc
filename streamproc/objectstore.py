"""A bucket of an object store, as claims and footage use it: how it is opened, and what its errors are to us. S3, and
whatever speaks as it does (extra `s3`); credentials and endpoint are read as AWS's own tools read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from streamproc.errors import Misconfigured, Unreachable

if TYPE_CHECKING:
    from obstore.store import S3Store


class Opening:
    """`url`, opened when it is first asked for. `what` it is to people; `within_s` bounds one request."""

    def __init__(self, url: str, *, what: str, within_s: float) -> None:
        self._url, self._what, self._within_s = url, f"{what} {url}", within_s
        self._opened: S3Store | None = None

    @contextmanager
    def mapped(self) -> Iterator[tuple[Any, S3Store]]:
        """obstore and the store. `Any`: the module of an extra that need not be installed."""
        try:
            import obstore
            import obstore.exceptions
        except ImportError as e:
            raise Misconfigured(f"{self._what} needs: pip install 'streamproc[s3]'") from e
        try:
            yield obstore, self._store()
        except (obstore.exceptions.InvalidPathError, obstore.exceptions.UnknownConfigurationKeyError) as e:
            raise Misconfigured(f"{self._what}: {_first_line(e)}") from e
        except (obstore.exceptions.BaseError, OSError) as e:
            remedy = "See that the bucket is there, and AWS_ENDPOINT_URL, AWS_REGION and the credentials fit."
            raise Unreachable(self._what, _first_line(e), remedy=remedy) from e

    def _store(self) -> S3Store:
        if self._opened is None:
            from obstore.store import S3Store

            self._opened = S3Store.from_url(
                self._url,
                client_options={
                    "timeout": timedelta(seconds=self._within_s),
                    "connect_timeout": timedelta(seconds=5),
                    "allow_http": True,  # who names an http:// endpoint means it
                },
                # Then it is our turn: backoff, circuit.
                retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
            )
        return self._opened


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
