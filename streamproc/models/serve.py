"""The command that serves a card's model with vLLM. Builds it; runs nothing.

A window's pictures pass the encoder once if its cache holds the windows that are in flight: the cache is as large as the
tokens of a batch, so these are counted from frames × tokens × streams.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from streamproc.errors import Misconfigured
from streamproc.models.card import Card

LEAST_BATCH_TOKENS: Final = 8192
"""vLLM's own default for serving."""
_STEP: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is going to be asked of the server."""

    frames: int
    """In one window."""
    width: int
    height: int
    streams: int
    """Windows in flight together."""


def command(
    card: Card,
    *,
    weights: str | None = None,
    served_name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    load: Load | None = None,
    loras: Sequence[str] = (),
    more: Sequence[str] = (),
) -> list[str]:
    """`vllm serve …` for a card. `weights`: a folder in place of the card's; `loras`: NAME=PATH; `more`: passed on as it is."""
    if card.serve is None:
        raise Misconfigured(f"vLLM does not serve '{card.name}'. {' '.join(card.notes)}")
    options = card.serve.model_dump(exclude_none=True)
    if load is not None and card.speak.image_limit != 0:
        options["max_num_batched_tokens"] = batch_tokens(card, load)
    if loras:
        for lora in loras:
            name, equals, path = lora.partition("=")
            if not (name and equals and path):
                raise Misconfigured(f"adapter '{lora}' is not NAME=PATH")
        options |= {"enable_lora": True, "lora_modules": (*options.get("lora_modules", ()), *loras)}
    return [
        "vllm",
        "serve",
        weights or card.model,
        *("--served-model-name", served_name or card.model),
        *("--host", host, "--port", str(port)),
        *(_filled(argument, card, weights) for name, value in options.items() for argument in _arguments(name, value)),
        *more,
    ]


def batch_tokens(card: Card, load: Load) -> int:
    """Tokens of the pictures of all windows in flight, at least vLLM's own default, in steps of 1,024."""
    each = card.speak.image_tokens(load.width, load.height)
    if each is None:
        raise Misconfigured(
            f"card '{card.name}' does not say how many tokens a picture has; ask a server with"
            f" `streamproc models check`, or give max_num_batched_tokens yourself behind --"
        )
    wanted = max(LEAST_BATCH_TOKENS, load.frames * each * load.streams)
    return -(-wanted // _STEP) * _STEP


def _arguments(name: str, value: Any) -> Iterator[str]:
    flag = "--" + name.replace("_", "-")
    if value is True:
        yield flag
    elif value is False:
        yield f"--no-{flag[2:]}"
    elif isinstance(value, dict):
        yield from (flag, orjson.dumps(value).decode())
    elif isinstance(value, list | tuple):
        yield from (flag, *map(str, value))
    else:
        yield from (flag, str(value))


def _filled(argument: str, card: Card, weights: str | None) -> str:
    if "{weights}" not in argument:
        return argument
    if weights is None:
        raise Misconfigured(
            f"'{card.name}' needs files that lie inside its weights: say where those are, --weights FOLDER"
        )
    return argument.replace("{weights}", weights.rstrip("/"))


def shown(arguments: Sequence[str]) -> str:
    """As it can be pasted into a shell."""
    return shlex.join(arguments)
