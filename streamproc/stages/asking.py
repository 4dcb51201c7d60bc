"""How a stage speaks to a model: pictures of a window, the call, and what every result of a model carries.

Whom the pool asks, how often, and what an outage means is not known here.
"""

from __future__ import annotations

from typing import Any, Protocol

from streamproc.messages import Seconds, Window
from streamproc.models.endpoint import Call
from streamproc.models.errand import Answer
from streamproc.models.prompt import Picture


class Models(Protocol):
    """Whoever brings calls to models: the pool."""

    async def ask(
        self, model: str, call: Call, *, stream: str, live: bool = True, deadline_s: float = 300.0
    ) -> Answer: ...


def pictures(window: Window) -> tuple[Picture, ...]:
    return tuple(Picture(frame.jpeg, frame.t_ms) for frame in window.frames)


def spoken(answer: Answer, *, sample: int = 0, **more: Any) -> dict[str, Any]:
    """The fields that every result of a model has, for `Detection.of(window, **spoken(answer), …)`."""
    return {
        "model": answer.model,
        "prompt": answer.prompt,
        "raw": answer.reply.samples[sample].text,
        "tokens": answer.tokens,
        "seconds": Seconds(queued=round(answer.queued_s, 3), served=round(answer.served_s, 3)),
        "attempts": answer.attempts,
    } | more
