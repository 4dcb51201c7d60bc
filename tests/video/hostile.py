"""`python -m tests.video.hostile FILES [--seed S]`: so many damaged files, and what became of each.

A file is either rejected by name, or every window of it has an outcome; whatever its bytes are, the process that asks
lives on and gets its answer within the deadline. Anything else is printed with the file's number, and fails.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path
from random import Random

from streamproc.errors import Rejected
from streamproc.messages import Window
from streamproc.video import address
from streamproc.video.choice import Rate
from streamproc.video.decode import decode
from streamproc.video.look import Look
from streamproc.video.windows import Cut, Sampling
from streamproc.video.workers import Workers
from tests.video.files import KINDS
from tests.video.test_decode import source

CUT = Cut(Sampling(Rate(Fraction(2)), Fraction(1), Fraction(2), look=Look(longest=64)))
SILENCE_S = 30.0
DEADLINE_S = 3 * 3 * SILENCE_S
"""Three attempts of a survey, and three of a slice, each silent to the end."""


def damaged(bases: list[bytes], random: Random) -> bytes:
    """A file with one to three kinds of damage done to it."""
    data = bytearray(random.choice(bases))
    for _ in range(random.randint(1, 3)):
        size = max(1, len(data))
        at = random.randrange(size)
        where = at if random.random() < 0.6 else random.randrange(min(size, 2048))
        match random.randrange(7):
            case 0:  # cut off
                del data[at:]
            case 1:  # bits flipped, here and there
                for _ in range(random.randint(1, 40)):
                    if data:
                        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
            case 2:  # a hole
                data[where : where + random.randint(1, 4096)] = bytes(random.randint(1, 4096))
            case 3:  # noise
                length = random.randint(1, 512)
                data[where : where + length] = random.randbytes(length)
            case 4:  # a part missing
                del data[where : where + random.randint(1, 4096)]
            case 5:  # a part twice
                data[where:where] = data[where : where + random.randint(1, 4096)]
            case _:  # numbers that are too large
                data[where : where + 4] = random.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
    return bytes(data)


def files(bases: list[bytes], count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    for number in range(count):
        yield number, damaged(bases, Random(seed * 1_000_003 + number))


async def fate(workers: Workers, path: Path) -> str:
    """What became of a file, in a word; raises AssertionError where a window has no outcome."""
    records: list[Window] = []
    try:
        async with (
            asyncio.timeout(DEADLINE_S),
            aclosing(decode(workers, source("1"), address.parse(path), CUT)) as steps,
        ):
            async for step, _ in steps:
                records += step
    except Rejected as e:
        return "rejected" if path.name in str(e) else f"WRONG: an error that names no file: {e}"
    at = 0
    for record in records:
        assert record.index == at, f"window {at} has no outcome"
        at = record.index if record.ended else record.until
    assert records[-1].count == at, "no end"
    kinds = {record.outcome for record in records[:-1]}
    return "read in part" if kinds - {"done"} else "read"


async def fates(folder: Path, bases: list[bytes], count: int, seed: int) -> Counter[str]:
    found: Counter[str] = Counter()
    todo = files(bases, count, seed)

    async def some(workers: Workers) -> None:
        for number, data in todo:
            path = folder / f"hostile-{number}.bin"
            path.write_bytes(data)
            try:
                found[await fate(workers, path)] += 1
            except (AssertionError, TimeoutError) as e:
                found[f"WRONG: {type(e).__name__}: {e} (seed {seed}, file {number})"] += 1
            path.unlink()

    async with Workers(2, silence_s=SILENCE_S) as workers, asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(some(workers))
    return found


def bases(folder: Path) -> list[bytes]:
    return [kind.make(folder).read_bytes() for kind in KINDS]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.video.hostile", description=__doc__)
    parser.add_argument("files", type=int)
    parser.add_argument("--seed", type=int, default=1)
    said = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(fates(Path(name), bases(Path(name)), said.files, said.seed))
    for what, count in found.most_common():
        sys.stdout.write(f"{count:6}  {what}\n")
    sys.stdout.write(f"{said.files} files in {time.monotonic() - begin:.0f} s, seed {said.seed}\n")
    return int(any(what.startswith("WRONG") for what in found))


if __name__ == "__main__":
    sys.exit(main())
