"""Feeds from a real server over HTTP that is broken on purpose: cut, silent, started anew, jumping, of another size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from streamproc.messages import Window
from streamproc.video import address
from streamproc.video.choice import Rate
from streamproc.video.follow import Backoff, Feed
from streamproc.video.limits import Limits
from streamproc.video.look import Look
from streamproc.video.streamtime import JUMP_S, StreamTime
from streamproc.video.windows import Cut, Sampling
from streamproc.video.workers import Workers
from tests.video.files import SLOW, Kind
from tests.video.test_decode import source

LIVE = Kind("live", "ts", f"{SLOW} -g 10 -bf 0 -x264-params repeat-headers=1", seconds=6)
SAMPLING = Sampling(Rate(Fraction(5)), Fraction(1), Fraction(1), look=Look(longest=64))


@dataclass
class Server:
    """Serves one script a connection: bytes, at the pace of the video; then the connection is cut."""

    scripts: list[bytes]
    pace: float = 4
    """Times as fast as the video; a test has no time to lose."""
    after: str = "cut"
    connections: int = 0
    url: str = ""
    seconds: float = 6
    _answers: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._answers.add(asyncio.create_task(self.answer(reader, writer)))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
        parts = max(1, round(self.seconds * 10))
        size = -(-len(script) // parts)
        try:
            for at in range(0, len(script), size):
                writer.write(script[at : at + size])
                await writer.drain()
                await asyncio.sleep(self.seconds / parts / self.pace)
            if self.after == "silence":
                await asyncio.sleep(3600)
        except ConnectionError:
            return
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/live.ts"
        try:
            yield
        finally:
            server.close()
            for answer in self._answers:
                answer.cancel()
            await asyncio.gather(*self._answers, return_exceptions=True)


def feed(workers: Workers, url: str, *, read_s: float = 20) -> Feed:
    return Feed(
        workers,
        address.parse(url),
        Cut(SAMPLING, began=datetime(2026, 3, 1, 20, 45, tzinfo=UTC)),
        zero_s=time.monotonic(),
        limits=Limits(read_s=read_s),
        backoff=Backoff(first_s=0.05, most_s=0.2),
        random=Random(7),
    )


async def windows_until(found: Feed, enough: int) -> list[Window]:
    records: list[Window] = []
    async with asyncio.timeout(60), aclosing(found.windows(source("1"))) as steps:
        async for step, _ in steps:
            records += step
            if sum(record.outcome == "done" for record in records) >= enough:
                break
    at = 0
    for record in records:
        assert record.index == at, "every index leaves as a window or within a gap"
        at = record.until
    return records


def done(records: list[Window]) -> list[Window]:
    return [record for record in records if record.outcome == "done"]


async def test_a_feed_that_is_cut_is_read_on_after_a_reconnection(folder: Path) -> None:
    server = Server([LIVE.make(folder).read_bytes()])
    async with server.running(), Workers(1) as workers:
        found = feed(workers, server.url)
        records = await windows_until(found, 9)
    assert server.connections >= 2
    assert found.connections >= 2
    assert all(record.utc and record.utc.startswith("2026-03-01T20:45") for record in records)
    assert all(frame.frame is None for record in done(records) for frame in record.frames)
    times = [frame.t_ms for record in done(records) for frame in record.frames]
    assert times == sorted(times)
    assert len(set(times)) == len(times)


async def test_a_feed_that_falls_silent_is_a_gap_a_step_and_then_reconnected(folder: Path) -> None:
    server = Server([LIVE.make(folder).read_bytes()], after="silence")
    async with server.running(), Workers(1) as workers:
        found = feed(workers, server.url, read_s=1)
        await windows_until(found, 9)
    assert server.connections >= 2


async def test_no_server_at_all_is_gaps_for_ever(folder: Path) -> None:
    async with Workers(1) as workers:
        found = feed(workers, "http://127.0.0.1:9/nobody")
        records: list[Window] = []
        async with asyncio.timeout(60), aclosing(found.windows(source("1"))) as steps:
            async for step, _ in steps:
                records += step
                if len(records) == 2:
                    break
    assert [(r.index, r.until_index, r.outcome, r.reason) for r in records] == [
        (0, 1, "skipped", "missing"),
        (1, 2, "skipped", "missing"),
    ]


async def test_another_size_in_mid_stream_is_shown_as_it_comes(folder: Path) -> None:
    larger = Kind("live-larger", "ts", LIVE.encode, size="192x128", seconds=6)
    server = Server([LIVE.make(folder).read_bytes() + larger.make(folder).read_bytes()], seconds=12)
    async with server.running(), Workers(1) as workers:
        found = feed(workers, server.url)
        found.cut = Cut(Sampling(SAMPLING.rule, SAMPLING.step_s, SAMPLING.length_s))
        records = await windows_until(found, 9)
    sizes = {np.asarray(simplejpeg.decode_jpeg(f.jpeg)).shape[1] for r in done(records) for f in r.frames}
    assert sizes == {96, 192}


# time ---------------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.fractions(Fraction(-(2**33)), Fraction(2**33), max_denominator=90000),  # what the clock jumps by
            st.integers(1, 60),  # frames until it does
            st.fractions(Fraction(0), Fraction(40), max_denominator=10),  # how long nothing came before
        ),
        min_size=1,
        max_size=6,
    )
)
def test_stream_time_never_goes_back_and_never_leaves_the_wall_clock(
    parts: list[tuple[Fraction, int, Fraction]],
) -> None:
    times, now, said = StreamTime(), Fraction(0), Fraction(0)
    last = Fraction(-1)
    for jump, frames, pause in parts:
        said, now = said + jump, now + pause
        for _ in range(frames):
            found = times.at(said, now)
            assert found > last or frames == 1 or found >= last
            assert abs(now - found) <= 2 * JUMP_S
            said, now, last = said + Fraction(1, 25), now + Fraction(1, 25), found


def test_a_burst_at_the_beginning_is_not_a_jump() -> None:
    times = StreamTime()
    found = [times.at(Fraction(n, 25), Fraction(n, 250)) for n in range(500)]
    assert times.jumps == 0
    assert found[-1] - found[0] == Fraction(499, 25)
