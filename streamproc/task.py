"""A task: what to look for in a stream, as one TOML file; read, changed option by option, checked, and listed.

A section that stands in the file switches its stage on. What a task says is resolved once, prompts included, and written
into the source's record: what a stream means never depends on a file on some worker. A task names models, and knows no
endpoint, no key and no bus.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Self, cast, get_args, get_origin

import orjson
from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from streamproc.errors import Misconfigured, did_you_mean
from streamproc.stages.caption import Options as Caption
from streamproc.stages.context import Options as Context
from streamproc.stages.dedup import Options as Dedup
from streamproc.stages.describe.stage import Options as Describe
from streamproc.stages.detect import Options as Detect
from streamproc.stages.ensemble.stage import Options as Ensemble
from streamproc.stages.locate import Options as Locate
from streamproc.stages.options import Asking, Labels, Section

NUMBER = r"^\d{1,9}(\.\d{1,9})?(/\d{1,9})?$"

OBSERVER = "observer"
"""Who serves a stage whose models nobody named: no AI, said loudly."""


class Sampling(Section):
    """Which frames are looked at, in which windows, and how they are shown. Times are exact: decimals, or `a/b`."""

    fps: str | None = Field(None, description="Samples a second; or `every`.")
    every: int | None = Field(None, ge=1, description="Every so manieth frame, as a number; or `fps`.")
    window_s: str | None = Field(
        None, description="How long a window is; with `every` and without this it is one frame."
    )
    step_s: str | None = Field(
        None, description="From one window's start to the next; with `every` it is from frame to frame."
    )
    frames: int | None = Field(None, ge=1, le=1024, description="At most so many frames of a window, evenly spread.")
    longest: int | None = Field(None, ge=16, le=16_384, description="Pixels of a frame's longer side, at most.")
    quality: int = Field(90, ge=1, le=100, description="Of the JPEGs.")

    @field_validator("fps", "window_s", "step_s", mode="before")
    @classmethod
    def _numbers_as_text(cls, said: Any) -> Any:
        text = str(said) if isinstance(said, int | float) and not isinstance(said, bool) else said
        if isinstance(text, str) and not re.fullmatch(NUMBER, text):
            raise ValueError("a number like 2 or 0.5, or a fraction like 30000/1001")
        return text

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.fps is None) == (self.every is None):
            raise ValueError("either fps or every says which frames are looked at")
        for name in ("fps", "window_s", "step_s"):
            if (said := getattr(self, name)) is not None and _zero(said):
                raise ValueError(f"{name} is {said}: it must be above 0")
        return self


def _zero(number: str) -> bool:
    above, _, below = number.partition("/")
    return not float(above) or (below != "" and not float(below))


class Task(Section):
    """All sections. Of the stages only those that stand in the file are on."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    about: str = Field("", description="What the task is for, in a line.")
    ahead: int = Field(256, ge=1, le=100_000, description="Windows that decoding may run ahead of the slowest reader.")
    join_wait_s: float = Field(
        30.0, gt=0, description="Feeds: stream time that a row waits for a service that says nothing."
    )
    sampling: Sampling = Field(Sampling(fps="1"), description="Which frames are looked at.")
    labels: Labels = Field(Labels(), description="What is looked for.")
    context: Context | None = None
    caption: Caption | None = None
    detect: Detect | None = None
    dedup: Dedup | None = None
    locate: Locate | None = None
    describe: Describe | None = None
    ensemble: Ensemble | None = None

    def resolved(self) -> dict[str, Any]:
        """As a source carries it: every option said, so that a later default changes nothing."""
        return self.model_dump(mode="json", exclude_none=True)


# reading ------------------------------------------------------------------------------------------------------------


@cache
def tasks() -> Mapping[str, Traversable]:
    """The tasks that ship, by name."""
    folder = resources.files("streamproc") / "tasks"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): f for f in files}


def load(what: str, *, options: Sequence[str] = (), models: Sequence[str] = ()) -> Task:
    """The task of a name or a file, with options (`key=value`) and models (`STAGE=NAME`) over it."""
    told = _read(what)
    for option in options:
        _set(told, option)
    _name_models(told, models)
    return _checked(told, what)


def over(resolved: Mapping[str, Any], *, options: Sequence[str] = (), models: Sequence[str] = ()) -> Task:
    """A task as a source carries it, with options and models over what it says."""
    told = deepcopy(dict(resolved))
    for option in options:
        _set(told, option)
    _name_models(told, models)
    return _checked(told, str(told.get("name")))


def _read(what: str) -> dict[str, Any]:
    if what in tasks():
        file: Traversable = tasks()[what]
    elif what.endswith(".toml") or "/" in what:
        file = Path(what)
    else:
        raise Misconfigured(
            f"no task '{what}'{did_you_mean(what, tasks())}; `streamproc tasks list` shows all, and FILE.toml is one of yours"
        )
    try:
        return {"name": file.name.removesuffix(".toml").lower(), **tomllib.loads(file.read_text())}
    except FileNotFoundError:
        raise Misconfigured(f"task file '{what}' is not there") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise Misconfigured(f"task file '{what}' cannot be read: {e}") from e


def _set(told: dict[str, Any], option: str) -> None:
    name, equals, text = option.partition("=")
    path = name.strip().split(".")
    field = _field(path)
    if not equals:
        raise Misconfigured(f"--set {option}: it looks like {name}=VALUE")
    table = told
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise Misconfigured(f"--set {option}: '{part}' is no table in the task")
    table[path[-1]] = _value(field, _contents(text) if text.startswith("@") else text)
    if (other := _INSTEAD.get(name.strip())) is not None:
        table.pop(other, None)


_INSTEAD = {"sampling.fps": "every", "sampling.every": "fps"}
"""Who says one of these no longer means the other."""


def _field(path: Sequence[str]) -> FieldInfo | None:
    """The option of a dotted name; None below a table of free names (a JSON schema, aliases)."""
    section: type[Section] = Task
    for depth, part in enumerate(path):
        fields = section.model_fields
        if part not in fields:
            known = [*(o.name for o in options()), *Task.model_fields]
            raise Misconfigured(
                f"no option '{'.'.join(path)}'{did_you_mean('.'.join(path), known)}; `streamproc tasks show NAME` lists them"
            )
        if depth == len(path) - 1:
            return fields[part]
        below = _section(fields[part])
        if below is None:
            return None
        section = below
    raise Misconfigured("an option has a name")


def _contents(at: str) -> str:
    try:
        return Path(at[1:]).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise Misconfigured(f"'{at[1:]}' cannot be read: {e}") from e


def _value(field: FieldInfo | None, text: str) -> Any:
    """As the option's type wants it: text as it is, numbers, lists with commas, and tables as TOML or JSON."""
    if field is not None:
        if _section(field) is None:
            try:
                return TypeAdapter[Any](cast(Any, field.annotation)).validate_strings(
                    text.strip() if len(text) < 100 else text
                )
            except ValidationError:
                pass  # not written as a plain value: a list or a table, or wrong, which the task's own check will say
        elif _section(field) is Labels:
            return text if not text.lstrip().startswith(("[", "{")) else _literal(text)
    found = _literal(text)
    if isinstance(found, str) and field is not None and "tuple" in str(field.annotation):
        return [part.strip() for part in text.split(",") if part.strip()]
    return found


def _literal(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    try:
        return tomllib.loads(text) or text
    except tomllib.TOMLDecodeError:
        return text


def _name_models(told: dict[str, Any], models: Sequence[str]) -> None:
    """`STAGE=NAME`, any number of times for stages that ask several. Who names none gets the observer."""
    named: dict[str, list[str]] = {}
    for said in models:
        stage, equals, name = said.partition("=")
        if not equals or not name:
            raise Misconfigured(f"--model {said}: it looks like STAGE=ENDPOINT")
        if stage not in asking():
            raise Misconfigured(f"--model {said}: no stage '{stage}' asks a model{did_you_mean(stage, asking())}")
        if stage not in told:
            raise Misconfigured(f"--model {said}: the task '{told['name']}' has no stage '{stage}'")
        if name not in named.setdefault(stage, []):
            named[stage].append(name)
    for stage, kind in asking().items():
        section = told.get(stage)
        if not isinstance(section, dict):
            continue
        if "models" in kind.model_fields:
            section["models"] = named.get(stage) or section.get("models") or [OBSERVER]
        elif len(named.get(stage, ())) > 1:
            raise Misconfigured(f"--model {stage}=…: the stage asks one model, not {' and '.join(named[stage])}")
        elif stage in named or kind.model_fields["model"].is_required():
            section["model"] = named[stage][0] if stage in named else section.get("model") or OBSERVER


def asking() -> dict[str, type[Section]]:
    """Stage → its options, of the stages that ask models."""
    sections = {name: _section(field) for name, field in Task.model_fields.items()}
    return {n: s for n, s in sections.items() if s and {"model", "models"} & s.model_fields.keys()}


def _checked(told: dict[str, Any], what: str) -> Task:
    try:
        return Task.model_validate(told)
    except ValidationError as e:
        problems = dict.fromkeys(_told(error) for error in e.errors())
        raise Misconfigured(f"task '{what}': " + "; ".join(problems)) from None


def _told(error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    where = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"no option '{where}'{did_you_mean(where, [*(o.name for o in options()), *Task.model_fields])}"
    if error["type"] == "missing":
        return f"'{where}' is missing"
    problem = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    return f"{where}: {problem}" + (
        f", not {given!r}" if isinstance(given, str | int | float) and len(str(given)) < 80 else ""
    )


# listing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """One option, as `tasks show` lists it."""

    name: str
    type: str
    default: Any
    bounds: str
    help: str
    variables: Mapping[str, str]
    """Of a prompt: what it may use."""


def options(section: type[Section] = Task, prefix: str = "") -> Iterator[Option]:
    """Every option there is, section by section."""
    for name, field in section.model_fields.items():
        if below := _section(field):
            yield from options(below, f"{prefix}{name}.")
            continue
        prompts = issubclass(section, Asking) and name in section.PROMPTS
        yield Option(
            prefix + name,
            _type(field),
            None if field.is_required() else to_jsonable_python(field.get_default(call_default_factory=True)),
            _bounds(field),
            field.description or "",
            section.VARIABLES if prompts else {},  # type: ignore[attr-defined]  # `prompts` says it is an Asking
        )


def _section(field: FieldInfo) -> type[Section] | None:
    """Of an option that is a section, or may be one; a list of sections is a value like others."""
    kind = field.annotation
    kinds = (kind,) if isinstance(kind, type) else get_args(kind) if get_origin(kind) is not tuple else ()
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, Section)), None)


def _type(field: FieldInfo) -> str:
    schema = TypeAdapter[Any](cast(Any, field.annotation)).json_schema()
    kinds = [schema, *schema.get("anyOf", ())]
    names = [k["type"] for k in kinds if "type" in k and k["type"] != "null"]
    choices = [c for k in kinds for c in k.get("enum", [k["const"]] if "const" in k else [])]
    return " | ".join(map(str, choices)) if choices else {"object": "table", "array": "list"}.get(names[0], names[0])


_SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _bounds(field: FieldInfo) -> str:
    annotated: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    schema = TypeAdapter(annotated).json_schema()
    kinds = [schema, *schema.get("anyOf", ())]
    return " ".join(f"{sign} {k[word]:g}" for k in kinds for word, sign in _SIGNS.items() if word in k)
