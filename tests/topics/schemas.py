"""JSON Schemas of all records; their descriptions are the docstrings of messages.py."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from typing import Any

import msgspec

from streamproc import messages
from streamproc.topics import Topic

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(topic: Topic) -> dict[str, Any]:
    """The schema of one topic's records, whole in itself."""
    record = topic.record
    assert record is not None
    _, parts = msgspec.json.schema_components([record], ref_template="#/$defs/{name}")
    for name, part in parts.items():
        _describe(part, getattr(messages, name))
    whole = parts.pop(record.__name__)
    return {
        "$schema": DIALECT,
        "$id": f"urn:streamproc:{topic.name}:v1",
        **whole,
        "description": f"{topic.about}. {whole['description']}" if "description" in whole else topic.about,
        **({"$defs": parts} if parts else {}),
    }


def _describe(part: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    """msgspec brings docstrings of classes; those of attributes stand in the source only. `null` is never written."""
    for python_name, said in _said(struct).items():
        part["properties"][_written(struct, python_name)]["description"] = said
    for field in part["properties"].values():
        kinds = field.get("anyOf", [])
        if "default" in field and field["default"] is None and {"type": "null"} in kinds:
            del field["default"]  # what is None is left out: its absence is the default


def _written(struct: type[msgspec.Struct], python_name: str) -> str:
    return next(f.encode_name for f in msgspec.structs.fields(struct) if f.name == python_name)


@cache
def _said(struct: type) -> dict[str, str]:
    """Attribute → the string right below it, of a class and those above it."""
    said: dict[str, str] = {}
    for above in reversed(struct.__mro__):
        if above.__module__ != messages.__name__:
            continue
        tree = ast.parse(inspect.getsource(above)).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                assert isinstance(field.target, ast.Name)
                said[field.target.id] = " ".join(str(text.value.value).split())
    return said
