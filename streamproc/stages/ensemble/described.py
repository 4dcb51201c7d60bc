"""What all describers of one incident or event say together, by the task's rule, and how far they agree.

Agreement is how far the describers agree with each other times how far each agreed with itself; of a filled row, that of the
describer whose row it is; of a cluster, its share of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streamproc.messages import Description
from streamproc.models.call import Answer
from streamproc.models.vote import Kind
from streamproc.stages.asking import spoken
from streamproc.stages.ensemble import rows
from streamproc.stages.ensemble.cluster import DECIDES, Ask, Asked, clustered


class Described(NamedTuple):
    """One row of fields, and by which rule it came about."""

    fields: dict[str, Any]
    rule: str
    agreement: float | None = None
    answers: Sequence[Answer] = ()
    how: str | None = None

    def spoken(self) -> dict[str, Any]:
        """For a record: the rule, and what a model said where one was asked."""
        said = spoken(*self.answers) if self.answers else {}
        return said | {"rule": self.rule} | ({"how": self.how} if self.how else {})


def by_vote(descriptions: Sequence[Description], kinds: Mapping[str, Kind]) -> Described:
    tally = rows.voted(_rows(descriptions), kinds)
    own = [d.agreement for d in descriptions if d.agreement is not None]
    within = sum(own) / len(own) if own else 1.0
    return Described(tally.values, "vote", None if tally.agreement is None else round(tally.agreement * within, 6))


def by_filling(descriptions: Sequence[Description], hole: rows.Row) -> Described:
    telling = [d for d in descriptions if not rows.is_hole(d.fields or {}, hole)] or descriptions
    return Described(rows.filled(_rows(descriptions), hole), "fill", telling[0].agreement if telling else None)


async def by_cluster(
    descriptions: Sequence[Description], kinds: Mapping[str, Kind], asked: Asked, ask: Ask
) -> Described:
    """By vote where fewer than two give a reason to compare, and where no answer can be read."""
    said, vote = _rows(descriptions), by_vote(descriptions, kinds)
    telling = [row for row in said if row.get("reason")]
    if len(telling) < 2:
        return vote
    decision, answers = await clustered(telling, asked, ask)
    if not decision.fields:
        return vote._replace(answers=answers, how=decision.how)
    rest = rows.most_frequent(said, [name for name in rows.names(said) if name not in DECIDES])
    share = round(len(decision.members) / len(said), 6) if decision.members else vote.agreement
    return Described(rest | decision.fields, "cluster", share, answers, decision.how)


def _rows(descriptions: Sequence[Description]) -> list[rows.Row]:
    return [d.fields or {} for d in descriptions]
