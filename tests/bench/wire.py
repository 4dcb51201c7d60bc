"""Window messages: encode and decode against copying their bytes, and what stands around the pictures.

Sixteen frames miss the goal of 400 bytes, and will: the public shape of a frame, {"t_ms", "frame", "jpeg"}, takes about 28
bytes in MessagePack (names 16, the two numbers 8, the lengths 4), 16 of them more than 400 by themselves. Only
another shape (times and numbers told once, as first and step) would be smaller, by 300 bytes in 352,650, and every reader
of `windows` in any language would have to rebuild what now stands there. That is a new major version, for 0.1 %. So the
line is told as it is, and beside it what of it is the frames' own.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from statistics import median

import msgspec

from streamproc.messages import Frame, Window, record_id
from streamproc.topics import topic
from streamproc.wire import decode, encode

TIME = "2026-03-01T20:45:00Z"
ROUNDS, TIMES = 41, 50
IN_FLIGHT = 32
"""Messages held meanwhile, as a process holds those in flight. With none, malloc hands memory back and fetches it again in
every call, and that is all one measures."""
COPIES_GOAL = 2.5
AROUND_GOAL = 400


def window(frames: int, jpeg_bytes: int = 22_000) -> Window:
    rng = random.Random(1)
    return Window(
        id=record_id("decode", "decode", "league/match1", 1, 1234),
        service="decode",
        root="decode",
        stream="league/match1",
        generation=1,
        revision=1,
        index=1234,
        start_ms=2_468_000,
        end_ms=2_472_000,
        outcome="done",
        frames=tuple(Frame(t_ms=2_468_000 + 250 * i, frame=61_700 + 6 * i, jpeg=rng.randbytes(jpeg_bytes)) for i in range(frames)),
        clips=((0, frames // 2 - 1), (frames // 2, frames - 1)),
        width=640,
        height=360,
    )  # fmt: skip


def per_call_s(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(TIMES):
        work()
    return (time.perf_counter() - began) / TIMES


def run() -> Iterator[tuple[str, float, float | None, bool | None]]:
    windows = topic("windows")
    for frames in (4, 16):
        record = window(frames)
        entry = encode(record, partitions=16, time=TIME)
        assert entry.value is not None
        assert decode(windows, entry) == record
        payload = bytearray(entry.value)

        held: deque[object] = deque(maxlen=2 * IN_FLIGHT)

        def there_and_back(record: Window = record, held: deque[object] = held) -> None:
            entry = encode(record, partitions=16, time=TIME)
            held.append(entry)
            held.append(decode(windows, entry))

        def copied_twice(payload: bytearray = payload, held: deque[object] = held) -> None:
            held.append(bytes(payload))
            held.append(bytes(payload))

        rounds = [(per_call_s(there_and_back), per_call_s(copied_twice)) for _ in range(ROUNDS)]
        ratio = median(ours / copying for ours, copying in rounds)
        what = f"{frames} × 22 kB"
        yield f"wire: encode + decode / copying twice, {what}", ratio, COPIES_GOAL, ratio <= COPIES_GOAL
        yield f"wire: encode + decode, {what}, µs", 1e6 * median(ours for ours, _ in rounds), None, None
        pictures = sum(len(f.jpeg) for f in record.frames)
        around = len(entry.value) - pictures
        of_frames = sum(len(msgspec.msgpack.encode(f)) for f in record.frames) - pictures
        yield f"wire: bytes around the pictures, {what}", around, AROUND_GOAL, around <= AROUND_GOAL
        yield f"wire: of these names, times, numbers and lengths of frames, {what}", of_frames, None, None
