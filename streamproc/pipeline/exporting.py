"""What has landed of streams, as those want it who go on with it elsewhere: events with their verdicts and the text they were
read from, descriptions, coverage. Formats are `exporting_formats`' business; nothing is waited for here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.errors import Misconfigured, did_you_mean
from streamproc.messages import Description, Detection, Incident, Life, Record, Source, Verdict
from streamproc.pipeline import outputs, streams
from streamproc.pipeline.newcomers import Newcomers
from streamproc.pipeline.parts import DECODE
from streamproc.pipeline.progress import Progress

DETECT = "detect."


@dataclass(slots=True, kw_only=True)
class Landed:
    """One stream."""

    source: Source
    coverage: list[dict[str, Any]]
    records: dict[str, dict[str, Record]] = field(default_factory=dict)
    """Topic → id → record: what a torn writer has said twice is there once."""

    @property
    def complete(self) -> bool:
        """Every service has answered for all of it, and nothing failed."""
        return all(row["ended"] and not row["failed"] and not row["missing"] for row in self.coverage)

    def of(self, name: str) -> list[Any]:
        """The records of a topic in the order of their numbers, ends left out."""
        there = self.records.get(name, {}).values()
        return sorted((r for r in there if not r.ended), key=lambda r: (r.index, r.service))

    def found(self) -> list[Found]:
        """Every event as it stands, in the order in which they began, with the verdict on it if there is one."""
        judged = {v.inputs[0]: v for v in self.verdicts() if v.inputs}
        rows = [Found(life, judged.get(record.id)) for record, life in outputs.newest(self.of("events"))]
        return sorted(rows, key=lambda f: (f.event.start_ms, f.event.time_ms, _number(f.event.id)))

    def verdicts(self) -> list[Verdict]:
        return self.of("verdicts")

    def incident(self) -> Incident | None:
        return next(iter(self.of("incidents")), None)

    def descriptions(self) -> list[Description]:
        return self.of("descriptions")

    def detections(self) -> dict[tuple[str, int], Detection]:
        """By model and number."""
        return {(d.service.removeprefix(DETECT), d.index): d for d in self.of("detections")}

    def document(self) -> dict[str, Any]:
        """Everything, as `run --out` writes it into files."""
        written = {
            file.name.partition(".")[0]: outputs.rows(file, list(self.records[file.topic].values()))
            for file in outputs.FILES
            if file.topic in self.records
        }
        return {
            "stream": self.source.stream,
            "source": self.source.uri,
            "task": self.source.task.get("name"),
            "complete": self.complete,
            "coverage": self.coverage,
            **written,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """An event, and what is thought of it."""

    event: Life
    verdict: Verdict | None

    @property
    def believed(self) -> bool:
        """Nothing speaks against it; where nobody judges, it is."""
        return self.verdict is None or self.verdict.outcome == "done"

    def confidence(self, model: str | None = None) -> float | None:
        """That of the verdict, else of the event; of one model the highest of its own."""
        if model is not None:
            return max(
                (v.confidence for v in self.event.votes if v.model == model and v.confidence is not None), default=None
            )
        judged = self.verdict.confidence if self.verdict else None
        return self.event.confidence if judged is None else judged

    def seen_by(self, model: str | None) -> bool:
        return model is None or any(v.model == model for v in self.event.votes)


def _number(event: str) -> int:
    return int(event.rpartition("/e")[2])


async def chosen(bus: Bus, names: Sequence[str] | None) -> list[Source]:
    """The streams of these names, each once and in their order; of None all, in the order in which they were added."""
    there = await streams.in_order(bus)
    if names is None:
        below = [s.stream.split("/") for s in there if s.service == DECODE]
        parents = {"/".join(parts[:n]) for parts in below for n in range(1, len(parts))}
        return [s for s in there if s.stream not in parents]  # a folder that is watched has streams, and is none
    known = {s.stream: s for s in there}
    for name in names:
        if name not in known:
            raise Misconfigured(f"no stream '{name}'{did_you_mean(name, known)}")
    return [known[name] for name in dict.fromkeys(names)]


async def landed(
    bus: Bus, progress: Progress, sources: Sequence[Source], topics: Iterable[str], *, claims: Claims | None = None
) -> list[Landed]:
    """What is there of these topics by now."""
    found = {s.stream: Landed(source=s, coverage=outputs.covered(progress, s, s.services)) for s in sources}
    for name, record in await Newcomers(bus, tuple(topics), sources, claims=claims).come() if sources else ():
        found[record.stream].records.setdefault(name, {})[record.id] = record
    return list(found.values())
