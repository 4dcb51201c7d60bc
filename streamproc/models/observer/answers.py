"""What the observer says: measured facts in the form that was asked for, and always the same for the same question.

It understands no label. A label *fires* where a word of it names something that was measured:

    a colour (`Red card`, `yellow`)                      an area of that colour, in all colours that the label names
    cut, replay, transition, scene                       the picture is another one all at once
    goal, flash, light, explosion, lightning             it gets brighter all at once
    motion, moving, run, foul, crash, collision, …       a part of the picture changed
    crowd, group, people, players, cars, objects         several things move

So a film with coloured cards and flashes has events that it finds, and everything after the model can be tried without
one. It says that it is no AI in every text it gives.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import orjson

from streamproc.models.observer.pictures import COLOURS, Seen
from streamproc.models.observer.tables import Row, telling

CUT_WORDS: Final = frozenset({"cut", "replay", "transition", "scene"})
FLASH_WORDS: Final = frozenset({"goal", "flash", "light", "explosion", "lightning"})
MOTION_WORDS: Final = frozenset(
    [
        "motion",
        "move",
        "moves",
        "moving",
        "movement",
        "run",
        "running",
        "action",
        "active",
        "foul",
        "tackle",
        "crash",
        "collision",
        "collide",
        "hit",
        "impact",
        "accident",
        "incident",
        "hazard",
        "danger",
        "dangerous",
        "near",
        "miss",
        "evasive",
        "braking",
        "yes",
        "true",
    ]
)
CROWD_WORDS: Final = frozenset({"crowd", "group", "people", "players", "cars", "vehicles", "objects", "several"})
NOTHING: Final = frozenset(
    {"none", "no", "nothing", "null", "false", "background", "n/a", "unknown", "other", "normal"}
)

OF_NOTE: Final = ("Scene cut", "Flash of light")
"""What it reports where it may report anything."""

LABELS: Final = frozenset({"label", "event", "type", "class", "category"})
"""Properties that hold one."""

AREA_FIRES, FLASH_FIRES, MOTION_FIRES, CROWD_FIRES = 0.01, 0.10, 0.06, 2


class Impossible(ValueError):
    """A form that no answer can have, or that is not understood."""


@dataclass(frozen=True)
class Facts:
    """All there is to answer from: pictures, a table in the text, and a little noise where sampling was asked for."""

    text: str
    seen: Seen
    times_s: Sequence[float] = ()
    """Of the pictures, where the labels before them said so."""
    numbers: Sequence[int] = ()
    """Of the pictures, where they were called by frame."""
    rows: Sequence[Row] = ()
    noise: random.Random | None = None
    only: tuple[str, float, int] | None = None
    """As one label sees them: it alone fires, this strongly, in this picture."""

    def fires(self, label: str) -> tuple[float, int]:
        """How strongly (0 where not at all), and in which picture."""
        if self.only is not None:
            return (self.only[1] if label == self.only[0] else 0.0), self.only[2]
        seen, words = self.seen, re.findall(r"[a-z]+", label.lower())
        if not seen.frames:
            return 0.0, 0
        if named := [w for w in words if w in COLOURS]:
            by_frame = [min(area[c] for c in named) for area in seen.areas]
            return self._over(by_frame, AREA_FIRES, full=0.15)
        for about, values, least, full in (
            (CUT_WORDS, [float(c) for c in seen.cuts], 0.5, 1.0),
            (FLASH_WORDS, seen.flashes, FLASH_FIRES, 0.5),
            (CROWD_WORDS, [float(b) for b in seen.blobs], CROWD_FIRES, 8.0),
            (MOTION_WORDS, seen.motion, MOTION_FIRES, 0.5),
        ):
            if not about.isdisjoint(words):
                return self._over(values, least, full=full)
        return 0.0, 0

    def _over(self, values: Sequence[float], least: float, *, full: float) -> tuple[float, int]:
        frame = max(range(len(values)), key=lambda i: (values[i], -i))
        value = values[frame] * (1 + (self.noise.uniform(-0.15, 0.15) if self.noise else 0))
        return (round(min(1.0, 0.5 + value / full / 2), 3), frame) if value >= least else (0.0, frame)

    def time_s(self, frame: int) -> float:
        return self.times_s[frame] if frame < len(self.times_s) else float(frame)

    def number(self, frame: int) -> int:
        return self.numbers[frame] if frame < len(self.numbers) else frame + 1

    @cached_property
    def liveliest(self) -> int:
        """The picture with the most to see, for questions that name no label."""
        if self.only is not None:
            return self.only[2]
        return max(range(self.seen.frames), key=lambda i: (self.seen.motion[i], -i), default=0)

    @cached_property
    def strength(self) -> float:
        if self.only is not None:
            return self.only[1]
        return max((self.fires(w)[0] for w in ("motion", "cut", "flash")), default=0.0)

    @cached_property
    def row(self) -> Row:
        """The row of the table that tells most."""
        return telling(self.rows, self.noise)

    @cached_property
    def sentence(self) -> str:
        seen = self.seen
        if not seen.frames:
            told = f"{len(self.rows)} rows read" if self.rows else "nothing to look at"
            return f"Measured by the observer, no AI: {told}."
        colours = {c: max(a[c] for a in seen.areas) for c in COLOURS}
        strong = [f"{c} {s:.0%}" for c, s in sorted(colours.items(), key=lambda cs: -cs[1])[:3] if s >= AREA_FIRES]
        cuts = [f"{self.time_s(i):g} s" for i, cut in enumerate(seen.cuts) if cut]
        parts = [
            f"{seen.frames} frames",
            f"brightness {sum(seen.brightness) / seen.frames:.0%}",
            f"motion {max(seen.motion):.0%}",
            f"{max(seen.blobs)} moving",
            *strong,
            *([f"cut at {', '.join(cuts)}"] if cuts else []),
        ]
        return f"Measured by the observer, no AI: {', '.join(parts)}."


def in_words(facts: Facts) -> str:
    """For a question without a schema: events where labels were given, or may be chosen; `None` where that was offered; else
    a caption."""
    labels = labels_in(facts.text) or list(OF_NOTE if '"label"' in facts.text else ())
    since_s = facts.time_s(0) if "since the first picture" in facts.text else 0.0
    fired = [(label, *facts.fires(label)) for label in labels]
    events = [
        {
            "label": label,
            "confidence": strength,
            "details": facts.sentence,
            "time": round(facts.time_s(frame) - since_s, 3),
        }
        for label, strength, frame in fired
        if strength
    ]
    if events:
        return orjson.dumps(events).decode()
    if re.search(r"\bNone\b", facts.text):
        return "None"
    return "[]" if labels else facts.sentence


def labels_in(text: str) -> list[str]:
    """Out of lists: `- Group: one, two` a line, `- one — what it means`, or `labels: one, two`. Lines with JSON are forms."""
    found = list[str]()
    for line in text.splitlines():
        listed = re.match(r"\s*(?:[-*•]|\d+[.)])\s+(.+)|.*\blabels?\b[^:]*:\s*(.+)", line, re.I)
        if listed and "{" not in line:
            names = (listed[1] or listed[2]).partition(" — ")[0].rsplit(":", 1)[-1]
            found += [n for part in re.split(r"[,;|]", names) if 0 < len(n := part.strip(" .\"'`[]()")) <= 80]
    return list(dict.fromkeys(found))


def by_choice(facts: Facts, choices: Sequence[str]) -> str:
    return _chosen(facts, list(choices))


def by_schema(facts: Facts, schema: Any) -> Any:
    """A value of the schema. Names of properties say what is meant: a column of the table, a time, a count, a label."""
    return _Form(schema)(facts, schema, "", 0)


def _chosen(facts: Facts, options: list[str]) -> str:
    """What fires most; else what stands for nothing; else the first."""
    strength, _, best = max(((facts.fires(o)[0], -i, o) for i, o in enumerate(options)), default=(0.0, 0, ""))
    if strength:
        return best
    return next((o for o in options if o.lower() in NOTHING), options[0])


class _Form:
    """Walks one schema; `root` is where its references point to."""

    def __init__(self, root: Any) -> None:
        self.root = root

    def __call__(self, facts: Facts, schema: Any, name: str, depth: int) -> Any:
        if depth > 24:
            raise Impossible("the schema goes round in circles")
        if schema is True or schema == {}:
            return facts.sentence
        if not isinstance(schema, dict):
            raise Impossible(f"'{schema}' is no schema")
        for word in ("uniqueItems", "multipleOf"):
            if word in schema:
                raise Impossible(f"the keyword '{word}' is not supported")
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._enum(facts, list(schema["enum"]), name)
        if either := schema.get("anyOf") or schema.get("oneOf"):
            return self(facts, self._either(facts, either, name), name, depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else "string")
        if isinstance(kind, list):
            kind = next((k for k in kind if k != "null"), "null")
        fill: Callable[[Facts, dict[str, Any], str, int], Any] | None = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._number,
            "boolean": lambda f, _s, n, _d: bool(f.row.get(n)) if n in f.row else f.strength > 0,
            "null": lambda _f, _s, _n, _d: None,
        }.get(kind)
        if fill is None:
            raise Impossible(f"'{kind}' is no type")
        return fill(facts, schema, name, depth)

    def _resolved(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        for _ in range(24 - min(depth, 23)):
            if "$ref" in schema:
                at = self.root
                for key in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
                    at = at.get(key) if isinstance(at, dict) and key else at
                if not isinstance(at, dict):
                    raise Impossible(f"{schema['$ref']} points nowhere")
                schema = {**at, **{k: v for k, v in schema.items() if k != "$ref"}}
            elif "allOf" in schema:
                rest = {k: v for k, v in schema.items() if k != "allOf"}
                for part in (self._resolved(p, depth + 1) for p in schema["allOf"]):
                    rest = {**rest, **part, "properties": {**rest.get("properties", {}), **part.get("properties", {})}}
                schema = rest
            else:
                return schema
        raise Impossible("the schema goes round in circles")

    def _either(self, facts: Facts, options: Sequence[Any], name: str) -> Any:
        """Null only where there is nothing to say."""
        something = [o for o in options if not (isinstance(o, dict) and o.get("type") == "null")]
        silent = not facts.row.get(name) and not facts.strength and len(something) < len(options)
        return {"type": "null"} if silent or not something else something[0]

    def _enum(self, facts: Facts, options: list[Any], name: str) -> Any:
        if not options:
            raise Impossible("an enum without values")
        if name in facts.row and facts.row[name] in options:
            return facts.row[name]
        words = [o for o in options if isinstance(o, str)]
        if words:
            return _chosen(facts, words)
        wanted = (1,) if facts.strength else (-1, 0)
        numbers = [o for o in options if not isinstance(o, bool)]
        return next((w for w in wanted if w in numbers), options[0])

    def _object(self, facts: Facts, schema: dict[str, Any], _name: str, depth: int) -> Any:
        properties = schema.get("properties", {})
        missing = [n for n in schema.get("required", ()) if n not in properties]
        return {n: self(facts, s, n, depth + 1) for n, s in properties.items()} | dict.fromkeys(missing, facts.sentence)

    def _array(self, facts: Facts, schema: dict[str, Any], name: str, depth: int) -> Any:
        least, most = schema.get("minItems", 0), schema.get("maxItems", 16)
        items = schema.get("prefixItems")
        if items:
            return [self(facts, s, name, depth + 1) for s in items[:most]]
        item = schema.get("items", {})
        found = [self(one, item, name, depth + 1) for one in self._one_each(facts, item, depth)][:most]
        while len(found) < least:
            found.append(self(facts, item, name, depth + 1))
        return found

    def _one_each(self, facts: Facts, item: Any, depth: int) -> list[Facts]:
        """Facts as seen by each label that fires, where the items have labels."""
        labels = self._labels(facts, item, depth + 1)
        fired = [(label, *facts.fires(label)) for label in labels if label.lower() not in NOTHING]
        return [replace(facts, only=one) for one in fired if one[1]]

    def _labels(self, facts: Facts, item: Any, depth: int) -> list[str]:
        """Of the schema, or of the question where the schema leaves them open."""
        if not isinstance(item, dict) or depth > 24:
            return []
        item = self._resolved(item, depth)
        if "enum" in item:
            return [o for o in item["enum"] if isinstance(o, str)]
        inside = item.get("properties", {})
        if not LABELS.isdisjoint(inside):
            name = next(n for n in inside if n in LABELS)
            return self._labels(facts, inside[name], depth + 1) or labels_in(facts.text)
        return next((found for s in inside.values() if (found := self._labels(facts, s, depth + 1))), [])

    def _string(self, facts: Facts, schema: dict[str, Any], name: str, _depth: int) -> str:
        label = facts.only[0] if facts.only and name in LABELS else None
        text = label or (str(facts.row[name]) if name in facts.row else facts.sentence)
        most, least = schema.get("maxLength"), schema.get("minLength", 0)
        if pattern := schema.get("pattern"):
            tries = (text, f"{facts.time_s(facts.liveliest):g}", "00:00", "0", "a", "none")
            text = next((t for t in tries if re.search(pattern, t)), "")
            if not re.search(pattern, text):
                raise Impossible(f"nothing here fits the pattern {pattern}")
        return text[:most].ljust(least, ".")

    def _number(self, facts: Facts, schema: dict[str, Any], name: str, _depth: int) -> float:
        value = self._meant(facts, name, schema.get("maximum"))
        least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        whole = schema.get("type") == "integer" or "integer" in schema.get("type", ())
        nudge = 1 if whole else 1e-6
        least = max(least, schema.get("exclusiveMinimum", -math.inf) + nudge)
        most = min(most, schema.get("exclusiveMaximum", math.inf) - nudge)
        if least > most:
            raise Impossible(f"no number is between {least} and {most}")
        value = float(min(max(round(value, 6), least), most))
        return round(value) if whole else value

    @staticmethod
    def _meant(facts: Facts, name: str, most: float | None) -> float:
        if isinstance(said := facts.row.get(name), int | float):
            return float(said)
        name = name.lower()
        for words, value in (
            (("confid", "probab", "score", "likeli"), facts.strength),
            (("time", "second", "when"), facts.time_s(facts.liveliest)),
            (("frame", "start", "index"), float(facts.row.get("frame") or facts.number(facts.liveliest))),
            (("sever", "risk", "hazard"), facts.strength * (most if most is not None else 1)),
            (("incident",), float(facts.strength > 0)),
            (("count", "number", "num", "how_many"), float(max(facts.seen.blobs, default=0))),
        ):
            if any(w in name for w in words):
                return value
        return float(max(facts.seen.blobs, default=0))


__all__ = ["Facts", "Impossible", "by_choice", "by_schema", "in_words", "labels_in"]
