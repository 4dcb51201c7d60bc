"""Every error of ours, by what is to be done about it.

    StreamprocError
    ├── Retryable              the same input may pass later: back off, try again
    │   ├── Throttled          told to slow down; knows for how long
    │   ├── SingledOut         failed where others went through: an attempt of this input, and no outage
    │   ├── Unreachable        a hop does not answer; names the hop and the remedy (exit code 4 at start)
    │   ├── DiskFull           the disk below the bus is full; what is there stays readable
    │   └── UnseenEnd          a landing whose end nobody saw: renew the lease and look
    ├── Rejected               this input will never pass: dead letter, a `failed` outcome flows on
    │   ├── Unparseable        not a record of its topic, or of a version unknown here
    │   ├── TooLarge           larger than its topic allows, and there is no store for claim checks
    │   └── LeftOut            not done on purpose: no dead letter, a `skipped` outcome with the reason flows on
    ├── Fatal                  this process, or this lease, cannot go on
    │   ├── Fenced             the lease has another owner by now
    │   ├── Misconfigured      settings, topics or files do not fit together (exit code 2)
    │   ├── NewerState         state written by a newer version than this one
    │   └── Corrupt            what the bus holds is damaged; says what is still readable
    ├── Expired                offsets asked for are no longer there; reported, reading goes on behind the hole
    ├── NotYet                 not a failure: a table's key is missing, so the record waits for it
    └── NotBegun               not a failure: we are to stop, and the call had not been sent; whoever is next makes it

The class decides, never the text. Errors of libraries are mapped where the library is called (`raise … from`).
"""

from __future__ import annotations

from collections.abc import Iterable


class StreamprocError(Exception):
    """Root of all errors raised on purpose."""


class Retryable(StreamprocError):
    """The same input may pass later."""


class Throttled(Retryable):
    """An endpoint or broker told us to slow down."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SingledOut(Retryable):
    """It failed where others went through: an attempt of this input, whatever else goes on, and no sign of an outage."""


class Unreachable(Retryable):
    """A hop on the way does not answer, or turns us away."""

    def __init__(self, hop: str, problem: str, *, remedy: str) -> None:
        super().__init__(f"{hop}: {problem}. {remedy}")
        self.hop, self.problem, self.remedy = hop, problem, remedy


class DiskFull(Retryable):
    """Nothing was written; landing goes on once there is room."""


class UnseenEnd(Retryable):
    """A landing may or may not have happened. Whole or not at all, in any case: renew the lease and read its serial."""


class Rejected(StreamprocError):
    """This input will never pass."""


class Unparseable(Rejected):
    """Not a record of its topic, or of a version that is unknown here."""


class TooLarge(Rejected):
    """A record larger than its topic allows."""


class LeftOut(Rejected):
    """Nothing is wrong with the input; it is not to be done."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Fatal(StreamprocError):
    """This process, or this lease, cannot go on."""


class Fenced(Fatal):
    """The lease has another owner by now; nothing of ours lands any more."""


class Misconfigured(Fatal):
    """Settings, topics or files do not fit together."""


class NewerState(Fatal):
    """State written by a newer version than this one; read it with that version."""


class Corrupt(Fatal):
    """What the bus holds is damaged."""


class Expired(StreamprocError):
    """Offsets [wanted, begin) of a partition are gone; the reader stands at `begin` now."""

    def __init__(self, topic: str, partition: int, wanted: int, begin: int) -> None:
        super().__init__(f"{topic}[{partition}]: offsets {wanted} to {begin - 1} have expired unread")
        self.topic, self.partition, self.wanted, self.begin = topic, partition, wanted, begin


class NotYet(StreamprocError):
    """A table has no such key so far: the record waits for it, until `within_s` from its first attempt by the wall clock."""

    def __init__(self, reason: str, *, topic: str, key: str, within_s: float, goes_without: bool = False) -> None:
        """`goes_without`: once it has waited in vain it is handled all the same; else it is skipped for the reason."""
        super().__init__(reason)
        self.reason, self.topic, self.key, self.within_s = reason, topic, key, within_s
        self.goes_without = goes_without


class NotBegun(StreamprocError):
    """A call that waited to be sent when the process was told to stop. Nothing was asked, and nothing is known."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'nearest'?` for the end of a message, or nothing where none of the known names is near."""
    from difflib import get_close_matches  # only an error has use for it

    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
