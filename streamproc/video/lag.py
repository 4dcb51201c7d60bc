"""Lag policies of feeds: which windows are left out while those who look at them cannot keep up.

    block                 none: whoever is behind has it all before him
    skip-older-than=S     those that come while the slowest reader is more than S seconds of stream time behind
    sample=N              all but one in N, while the slowest reader is more than N windows behind

A window that is left out is a counted outcome, `skipped: lag`; its number, its time and its place stay. Who is behind, and
how far, is not known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from msgspec.structs import replace

from streamproc.errors import Misconfigured, did_you_mean
from streamproc.messages import Window

BLOCK, OLDER, SAMPLE = "block", "skip-older-than", "sample"
LAG = "lag"
_SECONDS = re.compile(r"\d{1,7}(\.\d{1,6})?")
_COUNT = re.compile(r"\d{1,6}")


@dataclass(frozen=True, slots=True)
class Lag:
    policy: str = BLOCK
    limit: float = 0.0
    """Seconds, or windows."""

    @classmethod
    def parse(cls, text: str) -> Lag:
        policy, equals, number = text.partition("=")
        if policy == BLOCK and not equals:
            return cls()
        if policy == OLDER and _SECONDS.fullmatch(number) and float(number) > 0:
            return cls(policy, float(number))
        if policy == SAMPLE and _COUNT.fullmatch(number) and int(number) > 1:
            return cls(policy, int(number))
        near = did_you_mean(policy, (BLOCK, OLDER, SAMPLE)) if policy not in (BLOCK, OLDER, SAMPLE) else ""
        raise Misconfigured(
            f"lag '{text}': it is block, skip-older-than=S with seconds above 0, or sample=N with N from 2 on{near}"
        )

    def keeps(self, index: int, *, behind: int, step_s: float) -> bool:
        """Whether a window leaves, where the slowest reader is so many behind it."""
        if self.policy == OLDER:
            return behind * step_s <= self.limit
        if self.policy == SAMPLE:
            return behind <= self.limit or index % int(self.limit) == 0
        return True


def left_out(window: Window) -> Window:
    return replace(window, frames=(), clips=(), width=0, height=0, outcome="skipped", reason=LAG)
