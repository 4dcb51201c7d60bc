"""Records as rows and segments: what goes in comes out, byte for byte, however it was packed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.bus.embedded import Embedded
from streamproc.bus.embedded.segments import LARGE_BYTES
from streamproc.errors import Corrupt, Misconfigured, TooLarge
from streamproc.wire import Entry, Stored
from tests.bus.embedded.conftest import LARGE, entry, topic

Open = Callable[..., Awaitable[Embedded]]


async def all_of(bus: Embedded, name: str = "in") -> list[Stored]:
    return await bus.read(name, 0, 0, max_records=10**6, max_bytes=2**30)


async def test_every_byte_comes_back_whatever_it_is(bus: Embedded) -> None:
    values = [bytes([n, 0, n ^ 0xFF]) * 5 for n in range(256)] + [b"", b"\0", None]
    headers = (("é", b"\xff\0"), ("", b""))
    for name in ("in", "table"):
        for value in values:  # a row each, so that many rows are read in one step
            await bus.publish([Entry(name, 0, b"\0\xff key", value, headers)])
        found = await all_of(bus, name)
        assert [(r.key, r.value, r.headers) for r in found] == [(b"\0\xff key", v, headers) for v in values]
        assert [r.offset for r in found] == list(range(len(values)))


async def test_reading_from_any_offset_gives_what_follows_in_any_portion(bus: Embedded) -> None:
    dice = random.Random(5)
    n = 0
    while n < 1500:
        many = dice.choice([1, 2, 300, 700])
        sizes = [dice.choice([0, 10, 2000, LARGE_BYTES + 1]) for _ in range(min(many, 40))] + [5] * max(0, many - 40)
        await bus.publish([entry("in", b"%d." % (n + i) + b"x" * size) for i, size in enumerate(sizes)])
        n += many
    everything = await all_of(bus)
    assert [int((r.value or b"").split(b".")[0]) for r in everything] == list(range(n))
    for _ in range(100):
        at, records, size = dice.randrange(n), dice.choice([1, 3, 1000]), dice.choice([1, 30_000, 2**30])
        found = await bus.read("in", 0, at, max_records=records, max_bytes=size)
        assert found == everything[at : at + len(found)]
        assert 1 <= len(found) <= records
        assert len(found) == 1 or sum(r.size for r in found) <= size
        follows = everything[at + len(found) : at + len(found) + 1]
        assert not follows or len(found) == records or sum(r.size for r in found) + follows[0].size > size


async def test_large_values_lie_in_segments_and_small_ones_do_not(bus: Embedded, path: Path) -> None:
    folder = path.with_name("bus.db.d") / "segments"
    await bus.publish([entry("in", b"x" * LARGE_BYTES)])
    assert not list(folder.iterdir())
    await bus.publish([entry("in", b"x" * LARGE), entry("out", b"y" * LARGE), entry("table", b"z" * LARGE)])
    [segment] = folder.iterdir()
    assert segment.stat().st_size == 2 * LARGE  # what is compacted goes record by record, so it lies in rows
    assert [(await all_of(bus, name))[-1].value for name in ("in", "out", "table")] == [
        b"x" * LARGE,
        b"y" * LARGE,
        b"z" * LARGE,
    ]


@pytest.mark.parametrize("harm", ["flipped", "cut", "removed"])
async def test_a_damaged_segment_is_named_and_the_records_beside_it_stay_readable(
    bus: Embedded, path: Path, harm: str
) -> None:
    await bus.publish([entry("in", b"before"), entry("in", b"x" * LARGE), entry("in", b"after")])
    [segment] = (path.with_name("bus.db.d") / "segments").iterdir()
    if harm == "removed":
        segment.unlink()
    else:
        payload = segment.read_bytes()
        segment.write_bytes(payload[:-1] if harm == "cut" else payload[:-1] + b"y")
    with pytest.raises(Corrupt, match=segment.name):
        await bus.read("in", 0, 1, max_records=9, max_bytes=9**9)
    assert [r.value for r in await bus.read("in", 0, 0, max_records=1, max_bytes=9**9)] == [b"before"]
    assert [r.value for r in await bus.read("in", 0, 2, max_records=9, max_bytes=9**9)] == [b"after"]


async def test_what_cannot_be_written_is_refused_before_any_of_it_is(bus: Embedded) -> None:
    await bus.create([topic("small", max_bytes=10)])
    good = entry("in", b"good")
    with pytest.raises(TooLarge, match="11 bytes for small, which takes 10"):
        await bus.publish([good, entry("small", b"x" * 10)])
    with pytest.raises(Misconfigured, match="no topic 'nowhere'"):
        await bus.publish([good, entry("nowhere", b"")])
    with pytest.raises(Misconfigured, match="there are 2 partitions"):
        await bus.publish([good, entry("in", b"", partition=2)])
    assert await bus.span("in", 0) == (0, 0)


async def test_dead_letters_need_no_topic_made_for_them(bus: Embedded) -> None:
    await bus.publish([entry("in.dlq", b"why")])
    assert "in.dlq" in await bus.topics()
    with pytest.raises(Misconfigured, match=r"no topic 'nowhere\.dlq'"):
        await bus.publish([entry("nowhere.dlq", b"why")])


async def test_deployments_with_other_prefixes_see_nothing_of_each_other(opened: Open) -> None:
    one, two = await opened(prefix="one."), await opened(prefix="two.")
    await one.create([topic("in")])
    assert (await one.topics(), await two.topics()) == ({"in": 2}, {})
    await two.create([topic("in")])
    await one.publish([entry("in", b"mine")])
    assert await two.span("in", 0) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(-2000, 5000), st.integers(1, 3)), min_size=1, max_size=25),
    asked=st.lists(st.integers(-5000, 150_000), min_size=1, max_size=10),
)
async def test_the_offset_of_a_time_is_the_first_landed_then_or_later_though_clocks_jump_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]], asked: list[int]
) -> None:
    now_s = 50.0
    bus = await Embedded.open(tmp_path_factory.mktemp("bus") / "bus.db", partitions=1, clock=lambda: now_s)
    await bus.create([topic("in")])
    for step_ms, many in steps:
        now_s += step_ms / 1000
        await bus.publish([entry("in", b"")] * many)
    landed = [r.time_ms for r in await bus.read("in", 0, 0, max_records=10**6, max_bytes=2**30)]
    assert landed == sorted(landed)
    for time_ms in asked + landed:
        expected = next((o for o, t in enumerate(landed) if t >= time_ms), len(landed))
        assert await bus.offset_at("in", 0, time_ms) == expected
    await bus.close()
