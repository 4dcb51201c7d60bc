"""What a model calls a thing, as the task calls it: by name, by the task's own table, then by likeness, else 'other'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from rapidfuzz import fuzz, process

OTHER: Final = "other"
_KEPT: Final = 4096
_LONGEST: Final = 120
"""Characters of a name; what is longer is a sentence, and is like nothing."""
_APART: Final = re.compile(r"[\W_]+")


class Mapped(NamedTuple):
    label: str
    by: str
    """`name`, `table`, `likeness` or `other`; `said` where the task has no labels."""


class Labels:
    """A task's labels. Names that are declared for them in `also` count as well as their own."""

    def __init__(
        self,
        names: Iterable[str] = (),
        also: Mapping[str, str] | None = None,
        *,
        at_least: float = 88.0,
        ahead_by: float = 4.0,
    ) -> None:
        """`at_least`: likeness from 0 to 100 that a name needs; `ahead_by`: by how much it must beat the next label.

        Labels that differ in a letter may be opposites ('on target', 'off target'): what is like both is neither.
        """
        self.names = tuple(names)
        also = also or {}
        if strangers := sorted(set(also.values()) - {*self.names, OTHER}):
            raise ValueError(f"'{strangers[0]}' has other names and is no label; labels are {', '.join(self.names)}")
        self._at_least, self._ahead_by = at_least, ahead_by
        self._known = {_plain(said): Mapped(label, "table") for said, label in also.items()}
        self._known |= {_plain(label): Mapped(label, "name") for label in self.names}
        self._seen: dict[str, Mapped] = {}

    def of(self, said: str) -> Mapped:
        """The label for what was said. With no labels at all it is its own."""
        if (mapped := self._seen.get(said)) is None:
            mapped = self._mapped(said)
            if (
                len(self._seen) < _KEPT and len(said) <= _LONGEST
            ):  # models repeat themselves; hostile ones shall not fill the memory
                self._seen[said] = mapped
        return mapped

    def knows(self, said: str) -> bool:
        """By name or by the table; likeness is not enough."""
        return _plain(said) in self._known

    def _mapped(self, said: str) -> Mapped:
        if not self.names:
            return Mapped(said, "said")
        plain = _plain(said)
        if found := self._known.get(plain):
            return found
        if not plain or len(plain) > _LONGEST:
            return Mapped(OTHER, "other")
        best: dict[str, float] = {}
        for name, likeness, _ in process.extract(plain, list(self._known), scorer=fuzz.ratio, limit=None):
            label = self._known[name].label
            best[label] = max(best.get(label, 0.0), likeness)
        (label, first), *others = sorted(best.items(), key=lambda b: -b[1])
        if first >= self._at_least and (not others or first - others[0][1] >= self._ahead_by):
            return Mapped(label, "likeness")
        return Mapped(OTHER, "other")


def _plain(name: str) -> str:
    return _APART.sub(" ", name.replace("->", " to ").replace("→", " to ").casefold()).strip()


AS_SAID: Final = Labels()
"""No task: labels stay as they were said."""
