"""Every kind of answer that models give, each written from events that are known: what was said is the label.

A kind is a function from events to text. What it leaves out of the text (`whole`, `without`) is left out of the label by
the same stated rule; nothing is labelled by running the code under test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from streamproc.models.recovery.events import Event
from streamproc.models.recovery.labels import Labels

SOCCER = Labels(
    (
        "Penalty",
        "Kick-off",
        "Goal",
        "Substitution",
        "Offside",
        "Shots on target",
        "Shots off target",
        "Clearance",
        "Ball out of play",
        "Throw-in",
        "Foul",
        "Indirect free-kick",
        "Direct free-kick",
        "Corner",
        "Yellow card",
        "Red card",
        "Yellow->red card",
    ),
    {
        "Shot on target": "Shots on target",
        "Shot off target": "Shots off target",
        "Free-kick": "Direct free-kick",
        "Corner kick": "Corner",
        "Second yellow": "Yellow->red card",
    },
)

PROMPT = """Analyze these soccer game frames and identify ALL events with precise timestamps.

Detect these event types:
- Goals/Shots: Goal, Shot on target, Shot off target
- Fouls/Cards: Foul, Yellow card, Red card, Offside

For EACH event, output a JSON object:
{'label': 'EVENT_TYPE', 'team': 'home' OR 'away', 'confidence': 0.0-1.0, 'details': 'DESC'}

CRITICAL: If nothing significant happens, output exactly: None.
"""


@dataclass(frozen=True)
class Case:
    kind: str
    raw: str
    outcome: Literal["done", "unreadable"]
    events: tuple[Event, ...]
    prompt: str | None = None
    cut: bool = False


def _event(
    label: str, team: str | None, confidence: float | None, details: str | None, said: str | None = None
) -> Event:
    return Event(label=label, team=team, confidence=confidence, details=details, said=said)


WINDOWS: tuple[tuple[Event, ...], ...] = (
    (_event("Goal", "home", 0.95, "Player scores from close range"),),
    (_event("Foul", "away", 0.7, "Late tackle near the touchline"),),
    (_event("Corner", "home", 0.9, "Ball placed at the corner flag"), _event("Clearance", "away", 0.65, "Headed away")),
    (_event("Throw-in", "away", 0.55, "Taken quickly"),),
    (_event("Yellow card", "home", 0.88, "Referee raises a yellow card"), _event("Foul", "home", 0.8, "Shirt pulled")),
    (_event("Red card", "away", 1.0, "Sent off after a video review"),),
    (_event("Offside", "home", 0.4, "Flag goes up on the far side"),),
    (_event("Substitution", "away", 0.99, "Number 7 leaves for number 19"),),
    (_event("Kick-off", "home", 0.75, "Restart from the centre circle"),),
    (_event("Penalty", "away", 0.6, "Handball in the box, says the referee"),),
    (_event("Ball out of play", "home", 0.5, "Rolls over the goal line"), _event("Corner", "away", 0.45, "Given")),
    (_event("Shots on target", "home", 0.85, "Saved at full stretch"),),
    (_event("Shots off target", "away", 0.35, "High and wide: a wasted chance"),),
    (
        _event("Foul", "home", 0.71, "Trip in midfield"),
        _event("Direct free-kick", "away", 0.66, "Ball placed twenty metres out"),
        _event("Shots off target", "away", 0.58, "Over the bar"),
    ),
    (_event("Indirect free-kick", "home", 0.3, "Arm raised by the referee"),),
    (_event("Goal", "away", 0.0, "Perhaps; the angle hides the line"),),
    (_event("Clearance", "home", 0.62, "Goalkeeper's long punt"),),
    (_event("Goal", "home", 0.91, "It's in! The keeper's beaten"), _event("Kick-off", "away", 0.5, "Let's go again")),
    (_event("Foul", "away", 0.77, "Élbow by Müller"),),
    (_event("Corner", "home", 0.81, "Short corner [left side]"),),
)
"""What twenty windows show. Apostrophes, colons, brackets and accents are in their texts on purpose."""


def _dict(event: Event, *, label: str | None = None) -> dict[str, Any]:
    return {"label": label or event.label, "team": event.team, "confidence": event.confidence, "details": event.details}


def _without_label(event: Event) -> dict[str, Any]:
    return {name: value for name, value in _dict(event).items() if name != "label"}


def _dumped(events: tuple[Event, ...]) -> str:
    return json.dumps([_dict(e) for e in events])


def _python(event: Event) -> str:
    """As the prompt's example has it: single quotes, whatever is in the text."""
    return f"{{'label': '{event.label}', 'team': '{event.team}', 'confidence': {event.confidence}, 'details': '{event.details}'}}"


def _numbered(events: tuple[Event, ...]) -> str:
    return "\n".join(
        f"{i}. **{e.label}**\n   - Team: {e.team}\n   - Confidence: {e.confidence}\n   - Details: {e.details}"
        for i, e in enumerate(events, 1)
    )


Write = Callable[[tuple[Event, ...]], str]

WHOLE: dict[str, Write] = {
    "plain JSON": _dumped,
    "indented JSON": lambda e: json.dumps([_dict(x) for x in e], indent=2),
    "JSON without ASCII": lambda e: json.dumps([_dict(x) for x in e], ensure_ascii=False),
    "fenced JSON": lambda e: f"```json\n{_dumped(e)}\n```",
    "fenced without a language": lambda e: f"```\n{json.dumps([_dict(x) for x in e], indent=4)}\n```",
    "fenced, one block an event": lambda e: "\n\n".join(f"```json\n{json.dumps(_dict(x))}\n```" for x in e),
    "fenced among prose": lambda e: (
        f"Here is what I found in the frames:\n\n```json\n{_dumped(e)}\n```\n\nLet me know!"
    ),
    "fence never closed": lambda e: f"```json\n{_dumped(e)}",
    "JSON behind prose": lambda e: f"Based on the frames I see the following events: {_dumped(e)}",
    "JSON before prose": lambda e: f"{_dumped(e)}\n\nThe players then walk back to their own half.",
    "JSON lines": lambda e: "\n".join(json.dumps(_dict(x)) for x in e),
    "objects with commas, no list": lambda e: ", ".join(json.dumps(_dict(x)) for x in e),
    "wrapped in events": lambda e: json.dumps({"events": [_dict(x) for x in e]}),
    "wrapped in result and events": lambda e: json.dumps({"result": "ok", "events": [_dict(x) for x in e]}),
    "JSON in a string": lambda e: json.dumps(_dumped(e)),
    "Python dicts": lambda e: "[" + ", ".join(_python(x) for x in e) + "]",
    "Python dicts on lines": lambda e: "\n".join(_python(x) for x in e),
    "Python's own repr": lambda e: repr([_dict(x) for x in e]),
    "trailing commas": lambda e: "[" + ",".join(json.dumps(_dict(x))[:-1] + ",}" for x in e) + ",]",
    "commas missing between fields": lambda e: json.dumps([_dict(x) for x in e], indent=1).replace(",\n  ", "\n  "),
    "commas missing between objects": lambda e: "[" + " ".join(json.dumps(_dict(x)) for x in e) + "]",
    "keys without quotes": lambda e: (
        "["
        + ", ".join(
            f'{{label: "{x.label}", team: "{x.team}", confidence: {x.confidence}, details: {json.dumps(x.details)}}}'
            for x in e
        )
        + "]"
    ),
    "curly quotes": lambda e: (
        "["
        + ", ".join(
            f"{{“label”: “{x.label}”, “team”: “{x.team}”, “confidence”: {x.confidence}, “details”: “{x.details}”}}"
            for x in e
        )
        + "]"
    ),
    "comments": lambda e: "[\n" + ",\n".join(f"  // event\n  {json.dumps(_dict(x))}" for x in e) + "\n]",
    "quotes within quotes": lambda e: _dumped(
        tuple(replace_details(x, f'"{x.details}" they shout') for x in e)
    ).replace('\\"', '"'),
    "line breaks in strings": lambda e: _dumped(tuple(replace_details(x, f"{x.details}\nand on") for x in e)).replace(
        "\\n", "\n"
    ),
    "last bracket missing": lambda e: _dumped(e)[:-1],
    "one brace missing": lambda e: "[" + ", ".join(json.dumps(_dict(x)) for x in e)[:-1] + "]",
    "thoughts before": lambda e: f"<think>Is this {{a foul}}? Hard to say: [0.5].</think>\n{_dumped(e)}",
    "prompt before": lambda e: f"{PROMPT}\n{_dumped(e)}",
    "prompt in a turn before": lambda e: f"USER: <video>\n{PROMPT} ASSISTANT:\nassistant\n{_dumped(e)}",
    "template before": lambda e: (
        "{'label': 'EVENT_TYPE', 'team': 'home' OR 'away', 'confidence': 0.0-1.0, 'details': 'DESC'}\n" + _dumped(e)
    ),
    "end of sequence behind": lambda e: f"{_dumped(e)}<|im_end|>",
    "the same again and again": lambda e: "\n".join(json.dumps(_dict(x)) for x in e * 9),
    "numbered list in bold": _numbered,
    "numbered list in one line each": lambda e: "\n".join(
        f"{i}. **{x.label}** - Team: {x.team} - Confidence: {x.confidence} - Details: {x.details}"
        for i, x in enumerate(e, 1)
    ),
    "starred list with keys in bold": lambda e: "\n".join(
        f"* **Event:** {x.label}\n  **Team:** {x.team}\n  **Confidence:** {x.confidence}\n  **Details:** {x.details}"
        for x in e
    ),
    "blocks of lines": lambda e: "\n\n".join(
        f"Label: {x.label}\nTeam: {x.team}\nConfidence: {x.confidence}\nDetails: {x.details}" for x in e
    ),
    "markdown with headings": lambda e: (
        "**Events in this window**\n\n"
        + "\n".join(
            f"- {x.label}\n  - Team: {x.team}\n  - Confidence: {x.confidence}\n  - Details: {x.details}" for x in e
        )
    ),
    "list with brackets": lambda e: "\n".join(
        f"{i}. {x.label} ({x.team}, {x.confidence}): {x.details}" for i, x in enumerate(e, 1)
    ),
    "list with dashes": lambda e: "\n".join(
        f"{i}. {x.label} - {x.team} team - {x.confidence:.2f}" for i, x in enumerate(e, 1)
    ),
    "table": lambda e: (
        "| Event | Team | Confidence | Details |\n|---|---|---|---|\n"
        + "\n".join(f"| {x.label} | {x.team} | {x.confidence} | {x.details} |" for x in e)
    ),
    "confidence in percent": lambda e: json.dumps([_dict(x) | {"confidence": f"{x.confidence:.0%}"} for x in e]),
    "confidence as a string": lambda e: json.dumps([_dict(x) | {"confidence": str(x.confidence)} for x in e]),
    "team in capitals": lambda e: json.dumps([_dict(x) | {"team": f"{x.team.upper()} team"} for x in e if x.team]),
    "other names for the keys": lambda e: json.dumps(
        [{"Event Type": x.label, "Team": x.team, "Confidence Score": x.confidence, "Description": x.details} for x in e]
    ),
    "labels as keys": lambda e: json.dumps({x.label: _dict(x) | {"label": None} for x in e}),
    "labels as keys of lists": lambda e: json.dumps({x.label: [_without_label(x)] for x in e}),
    "labels as keys, fenced among those not seen": lambda e: (
        "```json\n" + json.dumps({x.label: _without_label(x) for x in e} | {"Penalty shoot-out": None}) + "\n```"
    ),
    "labels in capitals": lambda e: json.dumps([_dict(x, label=x.label.upper()) for x in e]),
    "labels with a letter wrong": lambda e: json.dumps([_dict(x, label=_misspelt(x.label)) for x in e]),
}


def replace_details(event: Event, details: str) -> Event:
    return Event(label=event.label, team=event.team, confidence=event.confidence, details=details, said=event.said)


def _misspelt(label: str) -> str:
    """The third letter twice; labels of five letters and less stay, since one letter is much of them."""
    return label if len(label) <= 5 else label[:3] + label[2] + label[3:]


def _as_it_is(event: Event) -> Event:
    return event


_TOLD: dict[str, Callable[[Event], Event]] = {
    "quotes within quotes": lambda e: replace_details(e, f'"{e.details}" they shout'),
    "line breaks in strings": lambda e: replace_details(e, f"{e.details}\nand on"),
    "labels in capitals": lambda e: _event(e.label, e.team, e.confidence, e.details, said=e.label.upper()),
    "labels with a letter wrong": lambda e: _event(
        e.label, e.team, e.confidence, e.details, said=None if len(e.label) <= 5 else _misspelt(e.label)
    ),
    "list with dashes": lambda e: _event(e.label, e.team, e.confidence, None),
    "confidence in percent": lambda e: _event(e.label, e.team, float(f"{(e.confidence or 0):.2f}"), e.details),
}
"""Kinds whose text says it otherwise than the window's events do."""

CUT: dict[str, Callable[[tuple[Event, ...]], tuple[str, int]]] = {
    "cut in the last string": lambda e: (_dumped(e)[:-9], len(e) - 1),
    "cut in the last number": lambda e: (_dumped(e).rpartition('"confidence": ')[0] + '"confidence": 0.', len(e) - 1),
    "cut behind the last object": lambda e: (_dumped(e)[:-1] + ", ", len(e)),
    "cut in the next key": lambda e: (_dumped(e)[:-1] + ', {"lab', len(e)),
    "cut within a wrapper": lambda e: ('{"events": ' + _dumped(e)[:-1] + ', {"label": "Go', len(e)),
    "cut in Python": lambda e: ("[" + ", ".join(_python(x) for x in e) + ", {'label': 'Fo", len(e)),
    "cut in a fence": lambda e: ("```json\n" + _dumped(e)[:-1] + ",\n  {", len(e)),
}
"""Text, and how many of the events are whole in it."""

NOTHING: tuple[str, ...] = (
    "None",
    "None.",
    "none",
    "NONE",
    "'None'",
    '"None."',
    "`None`",
    "**None**",
    "null",
    "N/A",
    "[]",
    "[ ]",
    "{}",
    '{"events": []}',
    '{"events": null}',
    '{"events": "None"}',
    '{"label": "None"}',
    '[{"label": "None", "team": null, "confidence": 0.0, "details": ""}]',
    "{'label': None}",
    "[None]",
    '["None"]',
    "```json\n[]\n```",
    "```\nNone.\n```",
    "```json\nnull\n```",
    "Answer: None",
    "Output: None.",
    "No events.",
    "No event",
    "No significant events detected.",
    "No significant event occurred in these frames.",
    "There are no significant events in the frames.",
    "There is no notable soccer event visible.",
    "Nothing significant happens.",
    "No events were detected during this window.",
    "None of the listed events",
    "None (no significant events)",
    "None - no events were detected.",
    "None\n\nThe players are walking back to the centre circle.",
    "None.\n\nExplanation: the ball is not in the picture.",
    "- Goal: none\n- Foul: none\n- Corner: none",
    "1. **Goal**: None\n2. **Foul**: No foul visible",
    "<think>Nothing moves.</think>None.",
    f"{PROMPT}\nNone.",
    "assistant\nNone.",
    "None.<|im_end|>",
    "  \n None. \n ",
)

UNREADABLE: tuple[str, ...] = (
    "",
    " ",
    "\n\n",
    "The players are walking towards the centre circle.",
    "I'm sorry, I can't help with that.",
    "As an AI model I cannot see the images.",
    "No goal, but a foul by the home team",
    "Not sure.",
    "{",
    "[",
    '[{"label": "Go',
    '{"label": "Goal", "team": "ho',
    '{"label": "Goal", "confidence": 0.',
    "```json\n[{",
    "```json\n```",
    '{"description": "Players gather in the centre circle"}',
    '{"confidence": 0.9}',
    '{"team": "home", "details": "runs"}',
    '{"label": 7}',
    "{'label': 'EVENT_TYPE', 'team': 'home' OR 'away', 'confidence': 0.0-1.0, 'details': 'DESC'}",
    '{"label": "<label>", "team": "<team>"}',
    '[{"label": "...", "team": "...", "confidence": 0.0}]',
    PROMPT,
    "1. Frame 1: not much to see.\n2. Frame 2: the ball rolls.",
    "1. The goalkeeper holds the ball\n2. Two players talk to the referee",
    "The score is 2 - 1 [home leads].",
    "0.95",
    "true",
    "42",
    "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    "<think>Is it a goal? {'label': 'Goal'}</think>",
    "\x00\x01\x02",
    "}}}}]]]]",
)


def cases() -> Iterator[Case]:
    for kind, write in WHOLE.items():
        told = _TOLD.get(kind, _as_it_is)
        for window in WINDOWS:
            prompt = PROMPT if kind.startswith("prompt") else None
            yield Case(kind, write(window), "done", tuple(told(e) for e in window), prompt)
    for kind, broken in CUT.items():
        for window in WINDOWS:
            raw, whole = broken(window)
            yield Case(kind, raw, "done" if whole else "unreadable", window[:whole], cut=True)
    for raw in NOTHING:
        yield Case("nothing", raw, "done", (), PROMPT if PROMPT in raw else None)
    for raw in UNREADABLE:
        yield Case("unreadable", raw, "unreadable", (), PROMPT if raw == PROMPT else None)
    yield from odd()


def odd() -> Iterator[Case]:
    """One by one, as they were met: a line {"kind", "raw", "outcome", "events", "cut"?} each."""
    for line in Path(__file__).with_name("odd.jsonl").read_text().splitlines():
        said = json.loads(line)
        yield Case(
            f"odd: {said['kind']}",
            said["raw"],
            said["outcome"],
            tuple(Event(**e) for e in said["events"]),
            cut=said.get("cut", False),
        )
