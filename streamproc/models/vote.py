"""Self-consistency: what several samples of one answer say together, field by field, and how far they agree.

    labels and other choices  the most frequent; of several the smallest
    numbers                   the rounded median; a half goes to the smaller
    text                      of the sample that agrees most with the rest of the result

What could not be read has no vote; that some could not is seen by `votes` against the number of samples. The result is the
same in whatever order the samples came, but for the text of samples that agree equally: there the first has it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Literal

from msgspec import Struct
from rapidfuzz import fuzz

Kind = Literal["choice", "number", "text"]


class Tally(Struct, frozen=True, kw_only=True):
    """What the samples say. `values` has no field that no sample has."""

    values: dict[str, Any]
    agreement: float | None
    """The mean over the fields of the share of votes for the result; None without votes."""
    votes: int
    """Samples that could be read."""
    by_field: dict[str, float]


class Located(Struct, frozen=True, kw_only=True):
    """A number that samples agreed on, or that lies in their middle."""

    value: int | None
    votes: int
    """Samples that say exactly this."""


def vote(samples: Sequence[Mapping[str, Any] | None], kinds: Mapping[str, Kind]) -> Tally:
    """One result of many samples. None is a sample that could not be read; `kinds` says how each field is decided."""
    readable = [s for s in samples if s]
    values, by_field = dict[str, Any](), dict[str, float]()
    for name, kind in kinds.items():
        said = [s[name] for s in readable if name in s]
        if kind == "text" or not said:
            continue
        values[name] = mode(said) if kind == "choice" else _middle(said)
        by_field[name] = sum(_same(v, values[name]) for v in said) / len(said)
    texts = [n for n, kind in kinds.items() if kind == "text"]
    for name in texts:
        if (best := _most_agreeing(readable, name, values)) is not None:
            values[name] = best
            others = [s[name] for s in readable if _is_text(s.get(name))]
            by_field[name] = sum(_alike(best, o) for o in others) / len(others)
    judged = [by_field[n] for n in by_field if kinds[n] != "text"] or list(by_field.values())
    return Tally(
        values={n: values[n] for n in kinds if n in values},
        agreement=sum(judged) / len(judged) if judged else None,
        votes=len(readable),
        by_field=by_field,
    )


def kinds_of(schema: Mapping[str, Any]) -> dict[str, Kind]:
    """How the fields of a JSON schema are decided: enums and booleans by frequency, numbers by median, else as text."""
    return {name: _kind(wanted) for name, wanted in schema.get("properties", {}).items()}


def _kind(schema: Mapping[str, Any]) -> Kind:
    types = schema.get("type", ())
    types = {types} if isinstance(types, str) else set(types)
    if "enum" in schema or types & {"boolean", "array", "object"}:
        return "choice"
    return "number" if types & {"integer", "number"} else "text"


def located(samples: Iterable[int | None]) -> Located:
    """Which frame: the one that most samples name, the smallest of several; where all differ the middle one."""
    said = [s for s in samples if s is not None]
    if not said:
        return Located(value=None, votes=0)
    value = mode(said) if max(Counter(said).values()) > 1 else rounded_median(said)
    return Located(value=value, votes=said.count(value))


def mode(values: Sequence[Any]) -> Any:
    """The most frequent; of several the smallest. Null is larger than anything said."""
    counts = Counter(map(_key, values))
    most = max(counts.values())
    first = min(k for k, n in counts.items() if n == most)
    return next(v for v in values if _key(v) == first)


def rounded_median(values: Sequence[float]) -> int:
    """Halves go down: of two middles that are equally near the smaller wins, as everywhere here."""
    return math.ceil(median(values) - 0.5)


def _middle(values: Sequence[Any]) -> Any:
    """The median of numbers, whole where they all are; null where most say null."""
    numbers = [v for v in values if v is not None]
    if 2 * len(numbers) < len(values) or not numbers:
        return None
    return rounded_median(numbers) if all(isinstance(v, int) for v in numbers) else median(numbers)


def _key(value: Any) -> tuple[int, float, str]:
    """An order over whatever models say: numbers, then text and the rest, then null."""
    if value is None:
        return (2, 0.0, "")
    if isinstance(value, bool | int | float):
        return (0, float(value), "")
    return (1, 0.0, value if isinstance(value, str) else repr(value))


def _same(value: Any, result: Any) -> bool:
    return _key(value) == _key(result)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _most_agreeing(samples: Sequence[Mapping[str, Any]], name: str, decided: Mapping[str, Any]) -> str | None:
    """The text of the sample that shares most decided fields; of several, the text that is most like the others'."""
    telling = [s for s in samples if _is_text(s.get(name))]
    if not telling:
        return None
    shared = [sum(_same(s[n], v) for n, v in decided.items() if n in s) for s in telling]
    best = [s for s, n in zip(telling, shared, strict=True) if n == max(shared)]
    return str(max(best, key=lambda s: sum(_alike(s[name], o[name]) for o in telling))[name])


def _alike(one: str, other: str) -> float:
    return fuzz.token_sort_ratio(one, other) / 100
