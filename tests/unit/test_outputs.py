"""Results as files: what they say of a stream is of one moment, whatever is heard while they are written."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from streamproc.bus.embedded import Embedded
from streamproc.messages import Source
from streamproc.pipeline.outputs import DEAD_S, Files, replace
from streamproc.pipeline.progress import Account, Progress
from streamproc.topics import deployment
from streamproc.wire import Stored
from tests.sim import toys
from tests.unit.test_progress import heard

SOURCE = toys.source("s", services=("decode", "detect.m"), count=10)


class Watched(Progress):
    """Knows who looked."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def of(self, source: Source, service: str) -> Account:
        self.threads.add(threading.get_ident())
        return super().of(source, service)


class Telling(Embedded):
    """Says a word while somebody reads."""

    word: Any = None

    async def read(self, *arguments: Any, **options: Any) -> list[Stored]:
        if self.word:
            self.word()
        return await super().read(*arguments, **options)


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Telling]:
    bus = await Telling.open(str(tmp_path / "log.db"), partitions=1)
    await bus.create(deployment())
    yield bus
    await bus.close()


async def test_what_is_heard_is_looked_at_on_the_loop_alone(bus: Telling, tmp_path: Path) -> None:
    progress = Watched()
    for service in SOURCE.services:
        heard(progress, service, "decode", taken=(0, 11), count=10)
    files = Files(tmp_path / "out", bus, progress)
    await files.write([SOURCE])
    assert progress.threads == {threading.get_ident()}
    assert files.written == {"s"}


async def test_what_comes_while_results_are_read_is_not_said_to_be_among_them(bus: Telling, tmp_path: Path) -> None:
    progress = Progress()
    heard(progress, "decode", "decode", taken=(0, 11), count=10)
    bus.word = lambda: heard(progress, "detect.m", "decode", taken=(0, 11), count=10)
    files = Files(tmp_path / "out", bus, progress)
    await files.write([SOURCE])
    said = json.loads((tmp_path / "out" / "s" / "summary.json").read_bytes())
    assert progress.complete(SOURCE, SOURCE.services)
    assert not said["complete"]
    assert not files.written
    await files.write([SOURCE])
    assert files.written == {"s"}


def test_of_several_who_write_the_same_file_at_once_each_does_and_it_is_whole_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    texts = [letter * 100_000 for letter in (b"a", b"b", b"c", b"d")]
    with ThreadPoolExecutor(len(texts)) as writers:
        for written in [writers.submit(replace, path, text) for text in texts * 10]:
            written.result()
            assert path.read_bytes() in texts
    assert [*tmp_path.iterdir()] == [path]


def test_what_a_writer_left_that_was_killed_goes_with_the_next_and_no_living_one_loses_its_own(tmp_path: Path) -> None:
    dead, alive, others = (tmp_path / name for name in (".events.json.7-0.part", ".events.json.8-0.part", ".mine.part"))
    for path in (dead, alive, others):
        path.write_bytes(b"half")
    long_ago = time.time() - DEAD_S - 1
    for path in (dead, others):
        os.utime(path, (long_ago, long_ago))
    replace(tmp_path / "events.json", b"[]")
    assert {path.name for path in tmp_path.iterdir()} == {"events.json", alive.name, others.name}
