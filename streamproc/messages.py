"""The records that flow: one frozen struct a topic. Shapes are public; a change here is a new major version.

A record is one outcome of one service for the numbers [index, until_index) of one sequence. A sequence is numbered by
the service that roots it (decode numbers windows, dedup events); everyone else keeps the number that they answer. So
`<service>/<root>/<stream>/<generation>/<index>` is an id that no clock, retry or model output can change.

A *gap* is a record with `until_index`; *ended* is the record at number N, with `count` N.

What has a default is left out of the bytes where it has it, so None means 'not there'; `events: []` is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Self

import msgspec
from msgspec import Meta, Struct

Outcome = Literal["done", "failed", "skipped"]
Stretch = tuple[int, int]
"""[start_ms, end_ms) in stream time."""

Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Sequence(NamedTuple):
    """Who speaks, who numbered what is spoken of, and of which life of which stream."""

    service: str
    root: str
    stream: str
    generation: int


class Placed(Protocol):
    """Whatever has a place in a stream: a record, or a row of them."""

    @property
    def root(self) -> str: ...
    @property
    def stream(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def until_index(self) -> int | None: ...
    @property
    def start_ms(self) -> int: ...
    @property
    def end_ms(self) -> int: ...
    @property
    def utc(self) -> str | None: ...


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every record carries."""

    id: str
    service: str
    root: str
    stream: str
    generation: Count
    revision: Count
    """Of the stream's source: which task, prompts included, this was made under."""
    index: Count
    until_index: int | None = None
    """In a gap: exclusive end of the numbers that this one record answers for."""
    start_ms: int
    end_ms: int
    utc: str | None = None
    """Wall-clock time of start_ms, ISO 8601; feeds have one, files have none."""
    outcome: Outcome
    reason: str | None = None
    count: int | None = None
    """In `ended`: how many numbers the sequence has."""

    @property
    def until(self) -> int:
        return self.index + 1 if self.until_index is None else self.until_index

    @property
    def ended(self) -> bool:
        return self.count is not None

    @property
    def sequence(self) -> Sequence:
        return Sequence(self.service, self.root, self.stream, self.generation)

    @classmethod
    def of(cls, place: Placed, **fields: Any) -> Self:
        """An outcome for what stands at `place`. Whoever emits it fills in service, root and id."""
        envelope: dict[str, Any] = {
            "id": "",
            "service": "",
            "root": place.root,
            "stream": place.stream,
            "generation": place.generation,
            "revision": place.revision,
            "index": place.index,
            "until_index": place.until_index,
            "start_ms": place.start_ms,
            "end_ms": place.end_ms,
            "utc": place.utc,
            "outcome": "done",
        }
        return cls(**(envelope | fields))


def record_id(service: str, root: str, stream: str, generation: int, index: int) -> str:
    return f"{service}/{root}/{stream}/{generation}/{index}"


_ID = re.compile(r"([a-z0-9.-]+)/([a-z0-9.-]+)/(.+)/(\d+)/(\d+)", re.DOTALL)


def parse_id(text: str) -> tuple[Sequence, int] | None:
    """The sequence and the number an id stands for; None if it is not one of ours."""
    if not (found := _ID.fullmatch(text)):
        return None
    service, root, stream, generation, index = found.groups()
    return Sequence(service, root, stream, int(generation)), int(index)


class Tokens(Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"into": "in"}):
    """`in` counts all tokens read, cached ones among them; `cached` says how many of them were."""

    into: Count
    cached: Count = 0
    out: Count


class Seconds(Struct, frozen=True, kw_only=True, omit_defaults=True):
    queued: float
    served: float


class Answer(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What every result of a model carries beside its own fields."""

    model: str | None = None
    prompt: str | None = None
    """Hash of the prompt, pictures left out."""
    raw: str | None = None
    """The model's own text, as it came."""
    how: str | None = None
    """How the text was read: whole, or by which rung of the recovery ladder."""
    context: str | None = None
    """Id of the context record that the prompt drew on."""
    tokens: Tokens | None = None
    seconds: Seconds | None = None
    attempts: Count | None = None


# sources ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _lattice(origin: str, step: str) -> tuple[int, int, int]:
    """Origin and step in whole parts of a second, and how many parts a second has."""
    a, b = Fraction(origin), Fraction(step)
    parts = lcm(a.denominator, b.denominator)
    return int(a * parts), int(b * parts), parts


class Grid(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Index i starts at `origin + (i - first) * step`; exact, in seconds as `a/b`. A change of the step is a new grid."""

    root: str
    """The service whose numbers lie on it."""
    origin: str
    step: str
    first: Count

    def __post_init__(self) -> None:
        try:
            sound = Fraction(self.step) > 0 and Fraction(self.origin) >= 0
        except (ValueError, ZeroDivisionError):
            sound = False
        if not sound:
            raise ValueError(f"a grid of origin '{self.origin}' and step '{self.step}' is none")

    def starts_ms(self, index: int) -> int:
        origin, step, parts = _lattice(self.origin, self.step)
        return (2 * 1000 * (origin + (index - self.first) * step) + parts) // (2 * parts)


class Source(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One revision of a stream: what it is, and the task it runs under, resolved to the last prompt.

    `index` is the revision; it is in force for the windows from `from_index` on.
    """

    uri: str
    live: bool
    """A feed; else a file, which is paced and ends by itself."""
    state: Literal["active", "paused", "removed"]
    from_index: Count
    grid: Grid
    task: dict[str, Any]
    services: tuple[str, ...]
    """Services that owe an outcome for every number of what they read."""
    readers: dict[str, tuple[str, ...]]
    """Topic → the services above that read it: what writers of the topic pace themselves by."""
    lag: str
    join_wait_s: float | None = None
    """Feeds: how much stream time a join waits for a service that says nothing."""
    footage: str | None = None
    """Where pictures can be fetched again; files are their own."""


# windows ------------------------------------------------------------------------------------------------------------


class Frame(Struct, frozen=True, kw_only=True, omit_defaults=True):
    t_ms: int
    frame: int | None = None
    """1-based number in shown order; files have one, feeds have none."""
    jpeg: bytes


class Window(Record, frozen=True, kw_only=True, omit_defaults=True):
    frames: tuple[Frame, ...] = ()
    clips: tuple[tuple[int, int], ...] = ()
    """[first, last] frame of each clip, inclusive. Cut on the step grid: overlapping windows share clips whole."""
    width: Count = 0
    height: Count = 0


# results ------------------------------------------------------------------------------------------------------------


class Context(Answer, frozen=True, kw_only=True, omit_defaults=True, rename={"from_": "from"}):
    """Teams, kits, scene: what later prompts draw on for from ≤ index < until."""

    fields: dict[str, Any] | None = None
    from_: Count | None = None
    until_: int | None = msgspec.field(default=None, name="until")


class Caption(Answer, frozen=True, kw_only=True, omit_defaults=True):
    text: str | None = None
    fields: dict[str, Any] | None = None


class Sighting(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event that a model says it sees in one window."""

    label: str
    team: str | None = None
    confidence: float | None = None
    details: str | None = None
    time_ms: int | None = None


class Detection(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """`done` with no events is the null class: looked at, nothing there."""

    events: tuple[Sighting, ...] | None = None
    """None where nothing was looked at: failed, skipped, gap, ended."""


class Incident(Answer, frozen=True, kw_only=True, omit_defaults=True):
    frame: int | None = None
    time_ms: int | None = None
    votes: Count | None = None
    """How many samples voted for the frame."""
    samples: tuple[int | None, ...] | None = None
    """What each sample said; null where it could not be read (no vote)."""


class Vote(Struct, frozen=True, kw_only=True, omit_defaults=True):
    model: str
    index: Count
    confidence: float | None = None


class Life(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event as it stands: opened, updated, closed. Its id stays, its revision grows."""

    id: str
    revision: Count
    state: Literal["open", "update", "close"]
    label: str
    team: str | None = None
    start_ms: int
    end_ms: int
    time_ms: int
    """The model's time where it gave one, else the window's middle."""
    confidence: float | None = None
    votes: tuple[Vote, ...]
    details: str | None = None
    looked: tuple[str, ...] = ()
    """Models that answered for any of its windows; who of them has no vote saw nothing."""


class Event(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One step in the life of an event. The record has its own id and stretch; those of the event stand inside."""

    event: Life | None = None


class Description(Answer, frozen=True, kw_only=True, omit_defaults=True):
    fields: dict[str, Any] | None = None
    samples: tuple[dict[str, Any], ...] | None = None
    agreement: Share | None = None
    preset: str | None = None


class Verdict(Answer, frozen=True, kw_only=True, omit_defaults=True):
    fields: dict[str, Any] | None = None
    label: str | None = None
    time_ms: int | None = None
    frame: int | None = None
    confidence: float | None = None
    found_by: tuple[str, ...] | None = None
    rule: str | None = None
    inputs: tuple[str, ...] | None = None
    """Ids of the records this stands on."""


# coverage -----------------------------------------------------------------------------------------------------------


class Coverage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one service has accounted for in one hour of one stream; readers take a stream's hours together."""

    id: str
    stream: str
    service: str
    root: str
    generation: Count
    hour: Count
    ended: bool
    count: int | None = None
    done: tuple[Stretch, ...]
    failed: tuple[Stretch, ...]
    skipped: tuple[Stretch, ...]
    missing: tuple[Stretch, ...]
    taken: tuple[tuple[int, int], ...]
    """The same by number: [index, until_index) that have an outcome. Pacing and joins go by these."""


def plain(record: Struct) -> Mapping[str, Any]:
    """As JSON-ready built-ins, as a terminal or a script wants to see it (pictures as base64)."""
    return msgspec.to_builtins(record)  # type: ignore[no-any-return]
