"""Who found an event, who looked and did not, and how sure to be of it.

    combined    each model that looked counts the same: with its highest confidence where it saw the event, with 0 where
                it did not. Who saw it without a number counts as the others' mean; where nobody gave one it is Laplace's
                (found + 1) / (looked + 2).
    calibrated  what a confidence has been worth: a rising line through knots, flat beyond them, as `score calibration`
                writes it. It comes behind `combined`, and before thresholds.

A model that failed, or was not asked, has not looked: it is neither for nor against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import numpy as np
from msgspec import Struct
from pydantic import Field, model_validator

from streamproc.messages import Life
from streamproc.stages.options import Section

Probability = Annotated[float, Field(ge=0, le=1)]


class Calibration(Section):
    """The file that `score calibration --out` writes."""

    method: str = Field("", description="How the line was fitted; only told.")
    confidence: tuple[Probability, ...] = Field(description="Knots: what was said …")
    probability: tuple[Probability, ...] = Field(description="… and how often it was right.")

    @model_validator(mode="after")
    def _one_rising_line(self) -> Self:
        x, y = self.confidence, self.probability
        if not x or len(x) != len(y):
            raise ValueError("a calibration has as many probabilities as confidences, one at the least")
        if list(x) != sorted(x) or list(y) != sorted(y):
            raise ValueError("in a calibration confidence and probability rise together")
        return self

    def __call__(self, confidence: float) -> float:
        return float(np.interp(confidence, self.confidence, self.probability))


class Found(Struct, frozen=True, kw_only=True):
    """What models say of one event."""

    found: Literal["by all", "by some", "by one"]
    """Of those who looked; `by one` is one of several."""
    found_by: tuple[str, ...]
    disagreement: tuple[str, ...]
    """Models that looked and saw nothing."""
    absent: tuple[str, ...]
    """Models that were to look and did not."""
    confidence: float


def found(event: Life, models: Sequence[str]) -> Found:
    """`models`: all that were to look."""
    by = {v.model for v in event.votes}
    looked = by | set(event.looked)
    return Found(
        found="by all" if by == looked else "by one" if len(by) == 1 else "by some",
        found_by=tuple(sorted(by)),
        disagreement=tuple(sorted(looked - by)),
        absent=tuple(sorted(set(models) - looked)),
        confidence=combined(event, looked=len(looked)),
    )


def combined(event: Life, *, looked: int) -> float:
    best: dict[str, float] = {}
    for vote in event.votes:
        if vote.confidence is not None:
            best[vote.model] = max(best.get(vote.model, 0.0), vote.confidence)
    by = len({v.model for v in event.votes})
    if not best:
        return round((by + 1) / (looked + 2), 6)
    mean = sum(best[model] for model in sorted(best)) / len(best)
    return round(mean * by / looked, 6)


def believed(label: str | None, confidence: float | None, thresholds: Mapping[str, float]) -> bool:
    """Whether it reaches the threshold of its label; a label without one is believed, as is what has no confidence."""
    least = {name.casefold(): at for name, at in thresholds.items()}.get((label or "").casefold())
    return least is None or confidence is None or confidence >= least
