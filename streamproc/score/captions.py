"""How much a text is like reference texts: BLEU-4, ROUGE-L, METEOR without synonyms, CIDEr. Over words, lower case.

Each is checked against a maintained implementation in its tests. METEOR's full form looks synonyms up in WordNet; here
words match when they are equal, or when a given `stem` makes them so. CIDEr is the variant everyone reports (CIDEr-D).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from streamproc.score.spots import Floats

Words: TypeAlias = Sequence[str]
_WORD = re.compile(r"[a-z0-9]+")
_SIGMA = 6.0


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(text: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


# BLEU-4 -------------------------------------------------------------------------------------------------------------


def bleu(texts: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Of the whole collection, unsmoothed: 0 where no four words in a row are right anywhere."""
    counts = [bleu_counts(text, refs) for text, refs in zip(texts, references, strict=True)]
    return float(bleu_of(np.sum(counts, axis=0, keepdims=True))[0])


def bleu_counts(text: Words, references: Sequence[Words]) -> list[int]:
    """What a text adds to the collection: n-grams that are right, n-grams, its length, the nearest reference's."""
    right, total = [], []
    for n in range(1, 5):
        allowed: Counter[tuple[str, ...]] = Counter()
        for ref in references:
            allowed |= _grams(ref, n)
        grams = _grams(text, n)
        right.append((grams & allowed).total())
        total.append(grams.total())
    _, nearest = min((abs(len(ref) - len(text)), len(ref)) for ref in references)
    return [*right, *total, len(text), nearest]


def bleu_of(counts: Floats) -> Floats:
    """BLEU-4 of summed counts, a number a row."""
    right, total, said, wanted = counts[:, :4], counts[:, 4:8], counts[:, 8], counts[:, 9]
    any_right = right.min(axis=1, keepdims=True) > 0
    logs = np.log(np.where(any_right, right, 1) / np.maximum(total, 1)).mean(axis=1)
    return np.asarray(any_right[:, 0] * np.exp(logs + np.minimum(0, 1 - wanted / np.maximum(said, 1))))


# ROUGE-L ------------------------------------------------------------------------------------------------------------


def rouge_l(text: Words, references: Sequence[Words]) -> float:
    """F1 of the longest common subsequence, with the reference that fits best."""
    return max((_rouge_l(text, ref) for ref in references), default=0.0)


def _rouge_l(text: Words, ref: Words) -> float:
    common = _common(text, ref)
    return 2 * common / (len(text) + len(ref)) if common else 0.0


def _common(a: Words, b: Words) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return row[-1]


# METEOR -------------------------------------------------------------------------------------------------------------


def meteor(text: Words, references: Sequence[Words], *, stem: Callable[[str], str] | None = None) -> float:
    """Recall counts nine times precision; words out of order cost up to half. With the reference that fits best."""
    return max((_meteor(text, ref, stem) for ref in references), default=0.0)


def _meteor(text: Words, ref: Words, stem: Callable[[str], str] | None) -> float:
    pairs = _align(dict(enumerate(text)), dict(enumerate(ref)), stem)
    if not pairs:
        return 0.0
    chunks = 1 + sum((b[0] - a[0], b[1] - a[1]) != (1, 1) for a, b in pairwise(pairs))
    precision, recall = len(pairs) / len(text), len(pairs) / len(ref)
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    return mean * (1 - 0.5 * (chunks / len(pairs)) ** 3)


def _align(text: dict[int, str], ref: dict[int, str], stem: Callable[[str], str] | None) -> list[tuple[int, int]]:
    """Equal words first, then equal stems of what is left; from the end, each word once."""
    pairs = _equal(text, ref)
    if stem:
        left_text = {i: stem(word) for i, word in text.items()}
        left_ref = {j: stem(word) for j, word in ref.items()}
        pairs += _equal(left_text, left_ref)
    return sorted(pairs)


def _equal(text: dict[int, str], ref: dict[int, str]) -> list[tuple[int, int]]:
    """Pairs of places with equal words; they are taken out of both."""
    places: dict[str, list[int]] = {}
    for j in sorted(ref):
        places.setdefault(ref[j], []).append(j)
    pairs = []
    for i in sorted(text, reverse=True):
        if left := places.get(text[i]):
            j = left.pop()
            pairs.append((i, j))
            del text[i], ref[j]
    return pairs


# CIDEr --------------------------------------------------------------------------------------------------------------

_Vector: TypeAlias = list[dict[tuple[str, ...], float]]


def cider(texts: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """One number a text, 0 to 10: n-grams weighted by how few of all items' references have them.

    It needs a collection: with one item everything is common, and everything scores 0.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    for refs in references:
        seen.update({gram for ref in refs for n in range(1, 5) for gram in _grams(ref, n)})
    log_items = math.log(len(references)) if references else 0.0
    scores = []
    for text, refs in zip(texts, references, strict=True):
        vector = _vector(text, seen, log_items)
        alike = [_likeness(vector, _vector(ref, seen, log_items), len(text), len(ref)) for ref in refs]
        scores.append(10 * sum(alike) / len(alike))
    return scores


def _vector(text: Words, seen: Mapping[tuple[str, ...], int], log_items: float) -> _Vector:
    return [
        {gram: count * (log_items - math.log(max(1, seen.get(gram, 0)))) for gram, count in _grams(text, n).items()}
        for n in range(1, 5)
    ]


def _likeness(text: _Vector, ref: _Vector, text_length: int, ref_length: int) -> float:
    # the original measures length in pairs of words, which is a word less, and never less than none
    apart = max(text_length - 1, 0) - max(ref_length - 1, 0)
    total = 0.0
    for ours, theirs in zip(text, ref, strict=True):
        norm = math.hypot(*ours.values()) * math.hypot(*theirs.values())
        if norm:
            shared = sum(min(weight, theirs[gram]) * theirs[gram] for gram, weight in ours.items() if gram in theirs)
            total += shared / norm
    return total / 4 * math.exp(-(apart**2) / (2 * _SIGMA**2))
