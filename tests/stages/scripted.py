"""Models that say what a story wants them to say, in no time. Real answers come over HTTP, from the observer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from streamproc.messages import Tokens
from streamproc.models.call import Answer, Call
from streamproc.models.reply import Finish, Reply, Sample

Texts = Sequence[Any]
"""The samples of one answer: text, or what is said as JSON."""


@dataclass
class Scripted:
    """Answers with what `says` makes of a call; an error that it makes is raised. `calls` are all that came."""

    says: Callable[[Call], Texts | Exception]
    finish: Finish = "stop"
    calls: list[Call] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    budgets: list[tuple[str, ...]] = field(default_factory=list)
    card: Mapping[str, Any] = field(default_factory=dict)
    """How it is sampled where a call does not say."""

    def sampling(self, model: str) -> Mapping[str, Any]:
        return self.card

    async def ask(
        self,
        model: str,
        call: Call,
        *,
        stream: str,
        live: bool = True,
        deadline_s: float = 300.0,
        budgets: tuple[str, ...] = (),
    ) -> Answer:
        self.calls.append(call)
        self.streams.append(stream)
        self.budgets.append(budgets)
        said = self.says(call)
        if isinstance(said, Exception):
            raise said
        texts = [text if isinstance(text, str) else orjson.dumps(text).decode() for text in said]
        return Answer(
            model=model,
            prompt=call.prompt.digest,
            reply=Reply(
                samples=tuple(Sample(text=text, finish=self.finish) for text in texts), model=model, tokens=None
            ),
            tokens=Tokens(into=100, out=10),
            queued_s=0.0,
            served_s=0.5,
            attempts=1,
            money=0.0,
        )
