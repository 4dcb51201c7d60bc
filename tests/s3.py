"""A real S3 server on this machine, for tests of what is kept in an object store. `conftest` has its fixtures for all."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

_numbers = count()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of a server that the whole session shares."""
    with serving() as address:
        yield address


@pytest.fixture
def aws(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, and clients go by it."""
    for name, value in environment(s3).items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture
def bucket(aws: str) -> str:
    """The name of a bucket of the test's own."""
    name = f"bucket-{next(_numbers)}"
    make_bucket(aws, name)
    return name


@contextmanager
def serving() -> Iterator[str]:
    """Its address."""
    from moto.server import ThreadedMotoServer  # a second, for the few tests that need it

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def environment(address: str) -> dict[str, str]:
    """What a client goes by."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


def make_bucket(address: str, name: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT"), timeout=30).close()
