"""Detect: which events a window shows, by one model.

The model is told what is looked for (labels, or a question in one's own words), and to say exactly `None` where nothing of
it happens: so the null class is an answer, and silence or nonsense is not. Its text is read by `models.recovery`, labels
are mapped to those of the task, and what it calls something else stays `other` with its own words.

Windows overlap and models repeat themselves; which reports are one event is `dedup`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar, Final, NamedTuple

from msgspec.structs import replace
from pydantic import Field

from streamproc.messages import Context, Detection, Sighting, Window
from streamproc.models.prompt import Prompt
from streamproc.models.recovery import events, labels
from streamproc.models.reply import Sample
from streamproc.models.vote import mode, rounded_median
from streamproc.stage import Each, Look
from streamproc.stages.asking import Contexts, Models, asked, context_part, pictures, spoken, told
from streamproc.stages.options import Informed, Labels, ModelName, Text, Told, filled
from streamproc.stages.reasons import NO_PICTURES, UNREADABLE

SYSTEM: Final = """You watch a video a few seconds at a time, in pictures in time order, and report what happens in it.

Report only this:
{labels}
{question}

Report what the pictures themselves show to happen, not what may have happened before or may follow. Say each event once, as a
JSON object in a list:
[{event}]

Most of the time nothing of it happens. If so, output exactly: None"""
PROMPT: Final = "What of it happens in these pictures?"
ANYTHING: Final = "Whatever a viewer would tell others about; as its label say in two or three words what it is."

_WISH: Final = re.compile(
    r"\A(?:please )?(?:tell me|let me know|notify me|warn me|alert me|report|say)\b(?: (?:when(?:ever)?|if|about)\b)?",
    re.I,
)
_LONGEST_LABEL: Final = 80
EVENTS_MOST: Final = 100
DETAILS_MOST: Final = 800
"""What a record carries of a window: more events in a few seconds, or more words on one, are a model that has lost itself."""


class Options(Informed):
    """[detect]"""

    VARIABLES: ClassVar[Mapping[str, str]] = {
        **Informed.VARIABLES,
        "labels": "what is looked for, a line each: the labels, else the question, else that it is anything of note",
        "question": "the task's question in its own words, where the labels do not say it all",
        "event": "how one event is to be written, with a team where events have one",
    }

    models: tuple[ModelName, ...] = Field(min_length=1, description="Who looks at the windows; each is a service.")
    question: Text = Field("", description="What to look for in your own words, as 'tell me when a red car passes'.")
    system: Text = Field(SYSTEM, description="Stands before everything else; the same for every window.")
    prompt: Text = Field(PROMPT, description="The question, behind the pictures.")


# the prompt ---------------------------------------------------------------------------------------------------------


def prompt_of(options: Options, wanted: Labels, window: Window, context: Context | None) -> Prompt:
    alone, question = only(options, wanted), options.question.strip()
    values = told(context) | {
        "labels": wanted.listed() if wanted.names else f"- {alone}" if alone else ANYTHING,
        "question": question if wanted.names or len(question) > _LONGEST_LABEL else "",
        "event": _event(teams=wanted.teams),
    }
    return Prompt(
        _without_holes(filled(options.prompt, values)),
        system=_without_holes(filled(options.system, values)) or None,
        context=context_part(options, values),
        pictures=pictures(window),
        clips=window.clips,
    )


def wish(question: str) -> str:
    """What a question without labels asks for, as the one label: 'tell me when it rains' → 'it rains'."""
    return _WISH.sub("", " ".join(question.split()), count=1).strip(" :.?!,")[:_LONGEST_LABEL].strip()


def _event(*, teams: bool) -> str:
    """Upper case where a word goes in, so that whoever only says this again is known to."""
    team = '"team": "home" or "away", ' if teams else ""
    return f'{{"label": "LABEL", {team}"confidence": 0.0 to 1.0, "details": "one sentence", "time": seconds since the first picture}}'


def _without_holes(text: str) -> str:
    """Where a variable was empty no more than one line is."""
    return re.sub(r"\n{3,}", "\n\n", text).strip()


# the answer ---------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    events: tuple[Sighting, ...] | None
    """None: it could not be read."""
    how: str


@lru_cache(maxsize=256)
def _known(names: tuple[str, ...], aliases: tuple[tuple[str, str], ...]) -> labels.Labels:
    return labels.Labels(names, dict(aliases))


def only(options: Options, wanted: Labels) -> str:
    """The one label of a task that has a question and no labels."""
    return "" if wanted.names else wish(options.question)


def known(options: Options, wanted: Labels) -> labels.Labels:
    """What an answer's labels are mapped to."""
    alone = only(options, wanted)
    return _known((alone,), ()) if alone else _known(wanted.names, tuple(wanted.aliases.items()))


def read(samples: Sequence[Sample], options: Options, wanted: Labels, window: Window, *, question: str) -> Seen:
    """What an answer says. Of one sample all of it; of several each label that any of them saw, as sure as many saw it."""
    alone, mapped = only(options, wanted), known(options, wanted)
    reads = [
        events.events(s.text, mapped, prompt=question, cut=s.finish == "length")
        for s in samples
        if s.finish != "refused"
    ]
    seen = [
        [_sighting(event, alone, window, teams=wanted.teams) for event in r.events]
        for r in reads
        if r.outcome == "done"
    ]
    if not seen:
        return Seen(None, reads[0].how if len(reads) == 1 else f"0 of {len(samples)} votes")
    if len(samples) == 1:
        return Seen(tuple(seen[0]), reads[0].how)
    return Seen(voted(seen), f"{len(seen)} of {len(samples)} votes")


def bounded(seen: Seen) -> Seen:
    """As much of it as a record carries, and a word where that is not all."""
    if seen.events is None:
        return seen
    kept = tuple(_short(one) for one in seen.events[:EVENTS_MOST])
    left_out = f"; only the first {EVENTS_MOST} events kept" if len(kept) < len(seen.events) else ""
    return Seen(kept, seen.how + left_out)


def _short(one: Sighting) -> Sighting:
    label, details = one.label, one.details
    if len(label) <= _LONGEST_LABEL and (details is None or len(details) <= DETAILS_MOST):
        return one
    return replace(one, label=label[:_LONGEST_LABEL], details=details and details[:DETAILS_MOST])


def _sighting(event: events.Event, alone: str, window: Window, *, teams: bool) -> Sighting:
    return Sighting(
        label=alone or event.label,  # asked a question, whatever it calls what it sees is the answer
        team=event.team if teams else None,
        confidence=event.confidence,
        details=events.described(event),
        time_ms=time_ms(event.time_s, window),
    )


def time_ms(said_s: float | None, window: Window) -> int | None:
    """A time that was said, in stream time: since the first picture, as was asked, else since the stream's beginning, as
    models say that are shown the time of each picture. One that fits neither way is not believed."""
    if said_s is None:
        return None
    first = window.frames[0].t_ms if window.frames else window.start_ms
    for at in (first + round(said_s * 1000), round(said_s * 1000)):
        if window.start_ms <= at <= window.end_ms:
            return at
    return None


def voted(samples: Sequence[Sequence[Sighting]]) -> tuple[Sighting, ...]:
    """Labels by the share of samples that saw them. The same in whatever order the samples came."""
    by_label: dict[str, list[Sighting]] = {}
    for seen in samples:
        for label, first in {s.label.casefold(): s for s in reversed(seen)}.items():
            by_label.setdefault(label, []).append(first)
    found = [_together(said, len(said) / len(samples)) for said in by_label.values()]
    return tuple(sorted(found, key=lambda s: (s.time_ms is None, s.time_ms or 0, s.label)))


def _together(said: Sequence[Sighting], share: float) -> Sighting:
    """One sighting of several samples' ones; the surest says what there is to see."""
    teams, times = [s.team for s in said if s.team], [s.time_ms for s in said if s.time_ms is not None]
    surest = max(said, key=lambda s: (s.details is not None, s.confidence or 0.0, s.details or ""))
    return Sighting(
        label=min(s.label for s in said),
        team=mode(teams) if teams else None,
        confidence=round(share, 4),
        details=surest.details,
        time_ms=rounded_median(times) if times else None,
    )


# the stage ----------------------------------------------------------------------------------------------------------


class Detect(Each):
    """One service a model: `detect.M`."""

    reads, writes, tables = ("windows",), ("detections",), ("contexts",)

    def __init__(self, model: str, models: Models) -> None:
        self._model, self._models = model, models
        self._options, self._labels = Told("detect", Options), Told("labels", Labels)
        self._contexts = Contexts()

    async def handle(self, record: Window, look: Look) -> Detection:
        if not record.frames:
            return Detection.of(record, outcome="skipped", reason=NO_PICTURES)
        source = look.source(record)
        options, wanted = self._options.of(source), self._labels.of(source)
        context = self._contexts.of(source, record.index, look, wait_s=options.context_wait_s)
        prompt = prompt_of(options, wanted, record, context)
        answer = await asked(self._models, self._model, prompt, options, source)
        seen = bounded(read(answer.reply.samples, options, wanted, record, question=prompt.question))
        spoke = spoken(answer, how=seen.how, context=context.id if context else None)
        if seen.events is None:
            return Detection.of(record, outcome="failed", reason=UNREADABLE, **spoke)
        return Detection.of(record, events=seen.events, **spoke)
