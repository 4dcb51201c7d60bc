"""How a stage speaks to a model: pictures of a window, what is known of the stream, the call, and what every result carries.

Whom the pool asks, how often, and what an outage means is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import orjson

from streamproc.messages import Context, Seconds, Source, Tokens, Window
from streamproc.models.call import Answer, Call
from streamproc.models.prompt import Picture, Prompt
from streamproc.stage import Look
from streamproc.stages.options import Asking, Informed, Stretches, Told, filled

RAW_MOST: Final = 65_536
"""Characters of a model's text that a record carries: however they are written, it fits into its topic. The last of a model
that has lost itself are of no use to anybody."""


class Models(Protocol):
    """Whoever brings calls to models: the pool."""

    async def ask(
        self,
        model: str,
        call: Call,
        *,
        stream: str,
        live: bool = True,
        deadline_s: float = 300.0,
        budgets: tuple[str, ...] = (),
    ) -> Answer: ...


def pictures(window: Window) -> tuple[Picture, ...]:
    return tuple(Picture(frame.jpeg, frame.t_ms) for frame in window.frames)


def spoken(*answers: Answer, sample: int | None = None, **more: Any) -> dict[str, Any]:
    """The fields that every result of a model has, for `Detection.of(window, **spoken(answer), …)`.

    `raw` is the model's text as it came; of several answers and samples (unless one is named) a JSON list of all. `how` is
    followed by what the call was made without, and by how much of a text is left out here: nothing is in silence.
    """
    texts = [s.text for a in answers for s in a.reply.samples]
    if sample is not None:
        texts = [answers[0].reply.samples[sample].text]
    said, texts = sum(map(len, texts)), kept(texts)
    notes = [*(n for a in answers for n in a.notes), *left_out(texts, said)]
    samples = [s for a in answers for s in a.reply.samples]
    if any(s.reasoning for s in samples) and not any(s.text.strip() for s in samples):
        cut = any(s.finish == "length" for s in samples)
        notes.append("it only thought, and was cut short: raise max_tokens" if cut else "it only thought")
    return {
        "model": answers[-1].model,
        "prompt": answers[0].prompt,
        "raw": texts[0] if len(texts) == 1 else orjson.dumps([sound(t) for t in texts]).decode(),
        "tokens": Tokens(
            into=sum(a.tokens.into for a in answers),
            cached=sum(a.tokens.cached for a in answers),
            out=sum(a.tokens.out for a in answers),
        ),
        "seconds": Seconds(
            queued=round(sum(a.queued_s for a in answers), 3), served=round(sum(a.served_s for a in answers), 3)
        ),
        "attempts": sum(a.attempts for a in answers),
        **more,
        "how": "; ".join(dict.fromkeys([*filter(None, [more.get("how")]), *notes])) or None,
    }


def kept(texts: Sequence[str]) -> list[str]:
    """Of each as much as a record carries of all."""
    return [t[: RAW_MOST // len(texts)] for t in texts] if sum(map(len, texts)) > RAW_MOST else list(texts)


def left_out(texts: Sequence[str], said: int) -> list[str]:
    """How much that is, in words, where it is not all that was said."""
    left = sum(map(len, texts))
    return [f"raw cut to {left:,} of {said:,} characters"] if left < said else []


async def asked(models: Models, model: str, prompt: Prompt, options: Asking, source: Source) -> Answer:
    """One call, as the options say."""
    call = Call(prompt=prompt, samples=options.samples, max_tokens=options.max_tokens, params=options.params())
    return await ask(models, model, call, source, deadline_s=options.deadline_s)


async def ask(models: Models, model: str, call: Call, source: Source, *, deadline_s: float) -> Answer:
    """For a source: feeds go before files, and its budgets and its task's pay."""
    budgets = (f"source:{source.stream}", *(f"task:{name}" for name in (source.task.get("name"),) if name))
    return await models.ask(model, call, stream=source.stream, live=source.live, deadline_s=deadline_s, budgets=budgets)


def sound(text: str) -> str:
    """Half characters cannot be written down."""
    return text.encode(errors="replace").decode()


class Contexts:
    """What is known of streams, by the stage `context`."""

    def __init__(self) -> None:
        self._stretches = Told("context", Stretches)

    def of(self, source: Source, index: int, look: Look, *, wait_s: float) -> Context | None:
        """What holds for a window; None where nothing is known, or did not come in time. Raises NotYet before that."""
        if "context" not in source.task:
            return None
        begin, _ = self._stretches.of(source).of(source.grid, index)
        found: Context | None = look.expect("contexts", source.stream, f"{source.generation}.{begin}", within_s=wait_s)
        return found if found is not None and found.fields else None


def told(context: Context | None) -> dict[str, str]:
    """The variable `context` of prompts: `name: value` a line."""
    fields = (context.fields if context else None) or {}
    return {
        "context": "\n".join(f"{name}: {plain(value)}" for name, value in fields.items() if value not in (None, ""))
    }


def plain(value: Any) -> str:
    """As a prompt shows it."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def context_part(options: Informed, values: Mapping[str, str]) -> str | None:
    """What stands before the pictures; nothing where nothing is known."""
    return filled(options.context, values) if values.get("context") else None
