"""One line a stage: how it is built out of what a process has. Its services, and who reads what, derive from the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamproc.errors import Misconfigured, did_you_mean
from streamproc.stage import Each, Stage
from streamproc.stages.caption import Captioner
from streamproc.stages.context import Contextualiser
from streamproc.stages.decode import Decode
from streamproc.stages.dedup import Dedup
from streamproc.stages.describe.stage import Describe
from streamproc.stages.detect import Detect
from streamproc.stages.ensemble.stage import Ensemble
from streamproc.stages.locate import Locate
from streamproc.stages.replay import Replay
from streamproc.task import Task

if TYPE_CHECKING:
    from streamproc.pipeline.means import Means

DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Plan:
    """One service: a stage, for one model and preset where it has them."""

    stage: str
    model: str | None = None
    preset: str | None = None

    @property
    def service(self) -> str:
        return ".".join(part for part in (self.stage, self.model, self.preset) if part)


@dataclass(frozen=True, slots=True)
class Part:
    kind: type[Stage]
    build: Callable[[Plan, Means], Stage]


PARTS: dict[str, Part] = {
    DECODE: Part(Decode, lambda _plan, has: Replay(Decode(has.workers), has.archive, has.footage)),
    "context": Part(Contextualiser, lambda plan, has: Contextualiser(plan.model or "", has.models)),
    "caption": Part(Captioner, lambda plan, has: Captioner(plan.model or "", has.models)),
    "detect": Part(Detect, lambda plan, has: Detect(plan.model or "", has.models)),
    "dedup": Part(Dedup, lambda _plan, _has: Dedup()),
    "locate": Part(Locate, lambda plan, has: Locate(plan.model, has.models)),
    "describe": Part(
        Describe, lambda plan, has: Describe(plan.model or "", plan.preset or "", has.models, has.footage)
    ),
    "ensemble": Part(Ensemble, lambda plan, has: Ensemble(plan.model, has.models)),
}
"""In the order of the flow."""


def planned(task: Task) -> tuple[Plan, ...]:
    """Every service that a task names, in the order of the flow.

    A `locate` that follows its rule `trigger` asks nobody, and is called after its model all the same: its name is what its
    numbers, its state and its place in the table of sources go by, so another would do again what streams have.
    """
    plans = [Plan(DECODE)]
    for stage in PARTS:
        section = getattr(task, stage, None)
        if section is None:
            continue
        models: Sequence[str | None] = getattr(section, "models", None) or [getattr(section, "model", None)]
        presets: Sequence[str | None] = getattr(section, "presets", None) or [None]
        plans += [Plan(stage, model, preset) for model in models for preset in presets]
    return tuple(plans)


def check_fed(plans: Sequence[Plan]) -> None:
    """Of a stream that begins with its pictures: a stage that nobody writes for would wait for ever."""
    written = {"sources"} | {name for plan in plans for name in PARTS[plan.stage].kind.writes}
    for plan in plans:
        if written.isdisjoint(reads := PARTS[plan.stage].kind.reads):
            feeders = sorted({s for s, part in PARTS.items() if not set(part.kind.writes).isdisjoint(reads)})
            raise Misconfigured(
                f"stage '{plan.stage}' has nothing to read: the task has none of the stages {', '.join(feeders)}"
            )


def readers(plans: Sequence[Plan]) -> dict[str, tuple[str, ...]]:
    """Topic → services that read it, of topics that any of them writes."""
    written = {name for plan in plans for name in PARTS[plan.stage].kind.writes}
    return {
        name: services
        for name in sorted(written)
        if (services := tuple(p.service for p in plans if name in PARTS[p.stage].kind.reads))
    }


def rooted(service: str, services: Sequence[str]) -> tuple[str, ...]:
    """Those of `services` whose numbers a service answers, where it keeps them: a describer those of incidents and of events."""
    part = PARTS.get(service.partition(".")[0])
    if part is None or not issubclass(part.kind, Each):
        return ()
    named = [(s, PARTS[stage].kind) for s in services if (stage := s.partition(".")[0]) in PARTS]
    return tuple(
        s for s, kind in named if not issubclass(kind, Each) and not set(kind.writes).isdisjoint(part.kind.reads)
    )


def plan_of(service: str) -> Plan:
    """The service of a name: `dedup`, `detect.MODEL`, `describe.MODEL.PRESET`."""
    stage, _, rest = service.partition(".")
    if stage not in PARTS:
        raise Misconfigured(f"no stage '{stage}' in '{service}'{did_you_mean(stage, PARTS)}")
    if stage == "describe":
        model, _, preset = rest.rpartition(".")
        if not model:
            raise Misconfigured(f"service '{service}': it looks like describe.MODEL.PRESET")
        return Plan(stage, model, preset)
    return Plan(stage, rest or None)
