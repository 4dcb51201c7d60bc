"""What can go wrong with a call, by what is to be done about it. Which error of openai means which stands in `mapping`.

Retryable
├── Throttled          (errors.py) slow down: 429, 503 and 529 with or without Retry-After
│   └── QuotaSpent     nothing more today, or until somebody pays: a declared wait, not a storm
├── Unreachable        (errors.py) nobody there, or the door stays shut: refused, DNS, TLS, 401, 403, 404, redirects
├── Interrupted        the answer never came whole: reset, disconnected, cut off, not HTTP
├── ServerFailed       a 5xx: the server's own trouble
├── Overdue            no answer within the deadline
├── Garbled            an answer that is too large, or of which nothing can be read: its call failed, nobody is out
└── CacheMiss          the server does not have these pictures: send them again with data
Rejected
├── BadRequest         a 4xx that names no remedy
├── TooMuch            more pictures, tokens or bytes than the model takes; knows which, and the limit where it was said
├── OutOfMemory        the server ran out of memory on this input
└── Refused            the model, or the filter before it, will not answer
"""

from __future__ import annotations

from typing import Literal

from streamproc.errors import Rejected, Retryable, Throttled
from streamproc.messages import Tokens


class QuotaSpent(Throttled):
    """The provider's day, month or purse is used up."""


class Interrupted(Retryable):
    """The answer never came whole."""


class ServerFailed(Retryable):
    """A 5xx."""


class Overdue(Retryable):
    """No answer within the deadline."""


class Garbled(Retryable):
    """An answer that is too large, or of which nothing can be read."""


class CacheMiss(Retryable):
    """Pictures were named that the server does not have."""


class BadRequest(Rejected):
    """This request will never pass."""


class TooMuch(Rejected):
    """More than the model takes."""

    def __init__(self, message: str, *, of: Literal["images", "tokens", "bytes"], limit: int | None = None) -> None:
        super().__init__(message)
        self.of, self.limit = of, limit


class OutOfMemory(Rejected):
    """The server ran out of memory on this input."""


class Refused(Rejected):
    """The model, or the filter before it, will not answer. What that took has to be paid for all the same."""

    def __init__(self, message: str, *, tokens: Tokens | None = None) -> None:
        super().__init__(message)
        self.tokens = tokens
