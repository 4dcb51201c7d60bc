"""The form of an answer: fields that a task declares, as a JSON schema, as lines of a prompt, and read out of samples.

What fields mean to a stage, and whether to ask again for those that are missing, is the stage's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from msgspec import Struct
from pydantic import AfterValidator

from streamproc.errors import did_you_mean
from streamproc.models.recovery.fields import fields as recovered
from streamproc.models.reply import Sample
from streamproc.models.vote import kinds_of, vote

Schema = Mapping[str, Any]

TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
KEYWORDS = frozenset(
    [
        "type",
        "enum",
        "description",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "items",
        "minItems",
        "maxItems",
        "properties",
        "required",
        "additionalProperties",
    ]
)


def _checked(fields: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, wanted in fields.items():
        _check(name, wanted)
    return fields


def _check(name: str, wanted: Schema) -> None:
    for word in wanted:
        if word not in KEYWORDS:
            raise ValueError(f"field '{name}': no keyword '{word}'{did_you_mean(word, KEYWORDS)}")
    options, kinds = wanted.get("enum"), kinds_said(wanted)
    if options is not None and (not isinstance(options, list) or not options):
        raise ValueError(f"field '{name}': enum is a list of values, not {options!r}")
    if options is None and not kinds:
        raise ValueError(f"field '{name}': it has a type, one of {', '.join(TYPES)}; or an enum")
    for kind in kinds:
        if kind not in TYPES:
            raise ValueError(f"field '{name}': no type '{kind}'{did_you_mean(str(kind), TYPES)}")
    for inner, schema in (*wanted.get("properties", {}).items(), ("items", wanted.get("items"))):
        if isinstance(schema, dict):
            _check(f"{name}.{inner}", schema)


def kinds_said(wanted: Schema) -> tuple[Any, ...]:
    said = wanted.get("type", ())
    return tuple(said) if isinstance(said, list | tuple) else (said,)


Fields = Annotated[dict[str, dict[str, Any]], AfterValidator(_checked)]
"""Name → the JSON schema of its value."""


def schema(fields: Mapping[str, Schema], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": [name for name in fields if name not in optional],
        "additionalProperties": False,
    }


def explained(fields: Mapping[str, Schema]) -> str:
    """For a prompt, a line each: what a field means and may be. A server that is held to a schema does not show it."""
    return "\n".join(f"{name}: {_explained(wanted)}" for name, wanted in fields.items())


def _explained(wanted: Schema) -> str:
    if options := wanted.get("enum"):
        may_be = "one of " + ", ".join(orjson.dumps(o).decode() for o in options)
    else:
        may_be = " or ".join(TYPES[kind] for kind in kinds_said(wanted))
        low, high = wanted.get("minimum"), wanted.get("maximum")
        may_be += f" from {low} to {high}" if None not in (low, high) else f", {low} or more" if low is not None else ""
    return "; ".join(part for part in (wanted.get("description"), may_be) if part)


class Said(Struct, frozen=True, kw_only=True):
    """What an answer says, all samples together. Nothing in `values`: it could not be read."""

    values: dict[str, Any]
    missing: tuple[str, ...]
    """Required fields that it lacks, or that say what they may not."""
    how: str


def said(samples: Sequence[Sample], form: Schema, *, prompt: str) -> Said:
    """`prompt`: what the model may have said again. Of several samples the vote; what cannot be read has none."""
    reads = [recovered(s.text, form, prompt=prompt, cut=s.finish == "length") for s in samples if s.finish != "refused"]
    if len(samples) == 1 and reads:
        return Said(values=reads[0].values, missing=reads[0].missing, how=reads[0].how)
    tally = vote([r.values for r in reads if r.outcome == "done"], kinds_of(form))
    missing = tuple(name for name in form.get("required", ()) if name not in tally.values)
    return Said(values=tally.values, missing=missing, how=f"{tally.votes} of {len(samples)} votes")
