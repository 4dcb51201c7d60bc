"""What is wrong with files without stopping the work: counted by kind, the first of each shown with file and row.

What does stop the work is raised as Rejected where it is met.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

SHOWN: Final = 3


@dataclass(slots=True)
class Problems:
    """A million bad rows are still a few lines: counts, and the first places."""

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, place: str, *, times: int = 1) -> None:
        """`kind` is a sentence without numbers; `place` says the file, the row and what stands there."""
        self.counts[kind] += times
        shown = self.places.setdefault(kind, [])
        if len(shown) < SHOWN:
            shown.append(place)

    def lines(self) -> Iterator[str]:
        """One line a kind, for people."""
        for kind, count in self.counts.items():
            places = "; ".join(self.places[kind])
            more = "; …" if count > len(self.places[kind]) else ""
            yield f"{count} × {kind}: {places}{more}"

    def plain(self) -> list[dict[str, object]]:
        """The same for scripts."""
        return [{"what": kind, "count": n, "first": self.places[kind]} for kind, n in self.counts.items()]

    def __bool__(self) -> bool:
        return bool(self.counts)
