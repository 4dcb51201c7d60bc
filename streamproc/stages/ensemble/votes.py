"""Who found an event, who looked and did not, and how sure to be of it.

    combined    each model that looked counts the same: with its highest confidence where it saw the event, with 0 where
                it did not. Who saw it without a number counts as the others' mean; where nobody gave one it is Laplace's
                (found + 1) / (looked + 2).
    agreed      how many of the voices that could have seen the event did, by Laplace's rule. A voice is a model in one window:
                who saw it in two windows that overlap is surer of it than who saw it in one.
    calibrated  what a confidence has been worth: a rising line through knots, flat beyond them, for each label its own where
                there is one, as `score calibration` writes it. It comes behind `combined`, or behind `agreed` where it was
                fitted on agreement; and before thresholds.

A model that failed, or was not asked, has not looked: it is neither for nor against.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal, Self

from msgspec import Struct
from pydantic import Field, model_validator

from streamproc.messages import Life
from streamproc.stages.options import Section

Probability = Annotated[float, Field(ge=0, le=1)]


class Line(Section):
    """One rising line."""

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

    def at(self, confidence: float) -> float:
        x, y = self.confidence, self.probability
        i = bisect_right(x, confidence)
        if i in (0, len(x)):
            return y[0] if i == 0 else y[-1]
        return y[i - 1] + (y[i] - y[i - 1]) / (x[i] - x[i - 1]) * (confidence - x[i - 1])


class Calibration(Line):
    """The file that `score calibration --out` writes."""

    method: str = Field("", description="How the lines were fitted; only told.")
    of: Literal["own", "agreement"] = Field(
        "own", description="What it maps: the confidence that models give, or how many of them saw it."
    )
    per_label: dict[str, Line] = Field({}, description="Labels that have a line of their own.")

    def __call__(self, confidence: float, label: str | None = None) -> float:
        return {name.casefold(): line for name, line in self.per_label.items()}.get((label or "").casefold(), self).at(
            confidence
        )


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
    agreement: float
    """How sure to be of it by voices alone."""


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
        agreement=agreed({(v.model, v.index) for v in event.votes}, looked=len(looked)),
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


def agreed(seen: Collection[tuple[str, int]], *, looked: int) -> float:
    """`seen`: the models and windows that saw it. Who looked could have seen it in as many windows as it was seen in at all."""
    spread = len({index for _, index in seen})
    return round((len(seen) + 1) / (looked * spread + 2), 6)


def believed(label: str | None, confidence: float | None, thresholds: Mapping[str, float]) -> bool:
    """Whether it reaches the threshold of its label; a label without one is believed, as is what has no confidence."""
    least = {name.casefold(): at for name, at in thresholds.items()}.get((label or "").casefold())
    return least is None or confidence is None or confidence >= least
