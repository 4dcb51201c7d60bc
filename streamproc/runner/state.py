"""What stands in the state of a lease: keys, and what is packed under them. Who changes it, and when, is the book's business.

State keys are `STREAM\\0kind\\0…`:

    guard   which numbers of a sequence have been taken, also those passed over      Ranges
    cover   what has been accounted for, an hour of a sequence                       HourState
    park    a record that waits: the topic and offset it has, bytes where small      Parked
    fold    where a stream's fold stands: index, next number, the stage's state      Standing
    run     where a stream's run stands: version, the stage's cursor, over or not    Run
    end     there where a sequence is over, until all of the above is forgotten      End
    \\0format the versions that wrote all this
    \\0jump   there where offsets have expired unread, and nobody has looked so far which numbers went with them
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from streamproc.errors import TooLarge
from streamproc.messages import Sequence
from streamproc.runner.cover import Cover
from streamproc.runner.ends import Life
from streamproc.topics import SEPARATOR, state_topic

ENGINE_VERSION = 2
FORMAT = f"{SEPARATOR}format"
JUMP = f"{SEPARATOR}jump"

At = tuple[str, int]
"""Topic and offset: where an input stands."""


class Format(Struct, array_like=True, frozen=True):
    engine: int
    stage: int


class Parked(Struct, array_like=True, frozen=True):
    """A record that waits. Its bytes are kept where they are few, else they are read again at its offset."""

    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    time_ms: int
    deadline_ms: int | None
    """By the wall clock; None: waits for order, not for a table."""
    so_far: bytes | None = None
    """What the calls before have brought, of a stage that makes several."""


class Standing(Struct, array_like=True, frozen=True):
    """Where the fold of one stream stands."""

    index: int
    number: int
    state: msgspec.Raw
    deadline_ms: int | None = None
    """Until when the row at `index` may wait for a table."""
    over: bool = False
    """The last row has been folded."""


class Run(Struct, array_like=True, frozen=True):
    """Where the run over one stream stands."""

    generation: int
    revision: int
    cursor: msgspec.Raw
    over: bool


MOST_BYTES = state_topic("").max_bytes // 2
"""Of what a stage keeps under one key; what the runner says around it is small."""

pack = msgspec.msgpack.Encoder().encode
NOTHING = msgspec.Raw(pack(None))


def kept(value: Any) -> bytes:
    """A stage's own state, packed: bytes from here on, so that nobody can change it behind the book's back.

    TooLarge, here and now, where the landing would fail, and that of every owner to come.
    """
    packed = pack(value)
    if len(packed) > MOST_BYTES:
        raise TooLarge(
            f"what the stage keeps would take {len(packed):,} bytes; {MOST_BYTES:,} may be kept of one stream"
        )
    return packed


def raw(value: Any) -> msgspec.Raw:
    """The same, to stand within another."""
    return msgspec.Raw(kept(value))


def guard_key(s: Sequence) -> str:
    return SEPARATOR.join((s.stream, "guard", str(s.generation), s.service, s.root))


def run_key(stream: str) -> str:
    return SEPARATOR.join((stream, "run"))


def fold_key(life: Life) -> str:
    stream, generation, root = life
    return SEPARATOR.join((stream, "fold", str(generation), root))


def end_key(life: Life) -> str:
    stream, generation, root = life
    return SEPARATOR.join((stream, "end", str(generation), root))


def hour_key(cover: Cover, number: int) -> str:
    return SEPARATOR.join((cover.stream, "cover", str(cover.generation), cover.root, str(number)))


def park_key(stream: str, at: At) -> str:
    return SEPARATOR.join((stream, "park", at[0], str(at[1])))
