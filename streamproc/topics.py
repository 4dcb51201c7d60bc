"""Topics: name, record, settings. The truth is `topics/*.toml`; this room reads it and knows nothing of any bus."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from streamproc import messages
from streamproc.errors import Misconfigured

BYTES = "bytes."
STATE = "state."
DLQ = ".dlq"
"""What failed for good stands under the topic's name with this behind it."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic's settings. `name` is without the deployment's prefix; a bus puts that before it."""

    name: str
    about: str
    record: type[messages.Record] | type[messages.Coverage] | None
    """None for state, dead letters and other topics whose bytes are nobody's business but their owner's."""
    content_type: str
    compacted: bool
    retention_hours: float
    """0: for ever."""
    max_bytes: int
    writers: tuple[str, ...] = ()
    own_numbers: bool = False
    """Its writers number their records themselves; else a record keeps the number that it answers."""

    @property
    def dlq(self) -> Topic:
        """Where this topic's records go that failed for good. Never compacted: each is a case of its own."""
        return Topic(
            name=self.name + DLQ,
            about=f"What could not be done with records of {self.name}",
            record=None,
            content_type=self.content_type,
            compacted=False,
            retention_hours=720,
            max_bytes=self.max_bytes,
        )


def state_topic(service: str) -> Topic:
    """The changelog of a service's keyed state, where the bus keeps state in a topic."""
    return Topic(
        name=STATE + service,
        about=f"Keyed state of {service}",
        record=None,
        content_type="application/octet-stream",
        compacted=True,
        retention_hours=0,
        max_bytes=16 * 2**20,
    )


def bytes_topic(name: str) -> Topic:
    """A topic of bare bytes: a record's number is its offset, and nothing is known of what it says."""
    return Topic(
        name=name,
        about="Bare bytes",
        record=None,
        content_type="application/octet-stream",
        compacted=False,
        retention_hours=168,
        max_bytes=2**20,
    )


def data(folder: str) -> Traversable:
    """A folder that ships with the package: beside the sources in a checkout, inside the package when installed."""
    packed = resources.files("streamproc") / "data" / folder
    return packed if packed.is_dir() else Path(__file__).parent.parent / folder


@cache
def all_topics() -> dict[str, Topic]:
    """Every topic of `topics/*.toml`, by name."""
    files = sorted((f for f in data("topics").iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {t.name: t for t in (_load(f) for f in files)}


def deployment() -> list[Topic]:
    """Every topic that a deployment has from its beginning, dead letters too."""
    return [t for topic in all_topics().values() for t in (topic, topic.dlq)]


def topic(name: str) -> Topic:
    """A topic by name; `NAME.dlq`, `state.SERVICE` and `bytes.NAME` (bare bytes, for stages of one's own) too."""
    if name.startswith(STATE):
        return state_topic(name.removeprefix(STATE))
    if name.startswith(BYTES) and not name.endswith(DLQ):
        return bytes_topic(name)
    if name.endswith(DLQ):
        return topic(name.removesuffix(DLQ)).dlq
    try:
        return all_topics()[name]
    except KeyError:
        raise Misconfigured(f"no topic '{name}'; there are {', '.join(all_topics())}") from None


def is_ours(name: str) -> bool:
    """A topic of streamproc's own: where there is no prefix, a cluster has others' topics too."""
    try:
        topic(name)
    except Misconfigured:
        return False
    return True


def _load(file: Traversable) -> Topic:
    try:
        said = tomllib.loads(file.read_text())
        record = getattr(messages, said.pop("record"))
        return Topic(name=file.name.removesuffix(".toml"), record=record, writers=tuple(said.pop("writers")), **said)
    except (tomllib.TOMLDecodeError, AttributeError, KeyError, TypeError) as e:
        raise Misconfigured(f"{file}: {e}") from e


# keys and partitions ------------------------------------------------------------------------------------------------

SEPARATOR = "\0"


def key_of(stream: str, *sub: str) -> bytes:
    """The stream's name; with NUL and the rest behind it in compacted topics, where a stream has many keys."""
    return SEPARATOR.join((stream, *sub)).encode()


def stream_of(key: bytes) -> str:
    """Of a key that is no UTF-8, and so none of ours, as much as can be read."""
    return key.split(b"\0", 1)[0].decode(errors="replace")


@lru_cache(maxsize=2**16)
def partition_of(stream: str, partitions: int) -> int:
    """Kafka's default partitioner over the stream's name alone: one stream, one partition number in every topic."""
    return (murmur2(stream.encode()) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """The 32-bit hash of Kafka's default partitioner."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    n = len(data)
    h = (0x9747B28C ^ n) & mask
    for i in range(0, n - n % 4, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        h = (h * m ^ (k ^ k >> 24) * m) & mask
    if rest := data[n - n % 4 :]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
