"""What is asked of a model, and what is heard: plain data, which costs nothing to those who never call one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamproc.messages import Tokens
from streamproc.models.prompt import Prompt
from streamproc.models.reply import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a stage wants to know; which model answers it is not its business."""

    prompt: Prompt
    samples: int = 1
    max_tokens: int = 512
    params: Mapping[str, Any] = field(default_factory=dict)
    """Sampling and the like, over the card's defaults."""
    yields: bool = False
    """It is about a file or a replay, and goes behind those about feeds where the server knows of priorities."""
    stream: bool = False
    """Costs more CPU, and gives the time to the first token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An answer, and what it took to get it."""

    reply: Reply
    notes: tuple[str, ...] = ()
    """What was left out or done otherwise than asked, in words."""
    sent_bytes: int = 0
    spared: int = 0
    """Pictures or clips that went by their uuid alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said, and what is recorded with it."""

    model: str
    """Who answered: the one that was asked, or its stand-in."""
    prompt: str
    """Hash of the prompt, pictures left out."""
    reply: Reply
    tokens: Tokens
    queued_s: float
    served_s: float
    attempts: int
    money: float
    notes: tuple[str, ...] = ()
