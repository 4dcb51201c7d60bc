"""Where settings come from, which names they have, and what is said of a wrong one."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from streamproc.errors import Misconfigured, did_you_mean
from streamproc.settings.options import Budget, Endpoint, Settings

FILE = "streamproc.toml"
PREFIX = "STREAMPROC_"

INHERITED = {
    "KAFKA_SECURITY_PROTOCOL": "kafka.protocol",
    "KAFKA_SASL_MECHANISM": "kafka.mechanism",
    "KAFKA_SASL_USERNAME": "kafka.username",
    "KAFKA_SASL_PASSWORD": "kafka.password",
    "KAFKA_SSL_CAFILE": "kafka.cafile",
    "OPENAI_BASE_URL": "openai.base_url",
    "OPENAI_API_KEY": "openai.api_key",
    "HF_TOKEN": "hf.token",
    "HF_HOME": "hf.home",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "otel.endpoint",
    "LOG_LEVEL": "log_level",
}
"""Names that people have in their environment already. `KAFKA_BOOTSTRAP_SERVERS` is one more: it names the bus."""

_BY_KUBERNETES = re.compile(r"STREAMPROC_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP)(_.*)?)?)")
"""A pod is told of every service in its namespace; one named `streamproc…` looks like a setting and is none."""

OF_DEVELOPERS = {"STREAMPROC_KAFKA_CACHE", "STREAMPROC_TEST_FOLDER"}
"""Read by deploy/ and tests/, and no settings of a process."""


def load(options: Mapping[str, Any] | None = None, *, file: Path | None = None) -> Settings:
    """The settings in force: `options` by dotted name (None: not given), the environment, and `file` or ./streamproc.toml."""
    _known_names_only(os.environ)
    try:
        return Settings.model_validate(
            _merged(
                _read(file or Path(FILE), must_exist=file is not None),
                _inherited(os.environ),
                _environment(),
                _nested({name: value for name, value in (options or {}).items() if value is not None}),
            )
        )
    except ValidationError as e:  # `from None`: its text holds what was given, secrets too
        raise Misconfigured("; ".join(_told(error) for error in e.errors())) from None


def _environment() -> dict[str, Any]:
    """What `STREAMPROC_*` says, as tables."""
    source = EnvSettingsSource(
        Settings,  # type: ignore[arg-type]  # only its fields are read; a BaseSettings would read the environment by itself
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        case_sensitive=False,
    )
    try:
        return source()
    except SettingsError as e:
        raise Misconfigured(f"environment: {e}; lists and tables are written as JSON") from None


def _merged(*tables: dict[str, Any]) -> dict[str, Any]:
    """One table out of many; what comes later wins."""
    whole: dict[str, Any] = {}
    for table in tables:
        for name, value in table.items():
            below = whole.get(name)
            whole[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return whole


def _read(path: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        if must_exist:
            raise Misconfigured(f"settings file '{path}' is not there") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise Misconfigured(f"settings file '{path}' cannot be read: {e}") from e


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{'kafka.protocol': x} → {'kafka': {'protocol': x}}"""
    whole: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        table = whole
        for group in groups:
            table = table.setdefault(group, {})
        table[last] = value
    return whole


def _inherited(environ: Mapping[str, str]) -> dict[str, Any]:
    found = _nested({ours: environ[theirs] for theirs, ours in INHERITED.items() if environ.get(theirs)})
    if bootstrap := environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        found["bus"] = "kafka://" + ",".join(server.strip() for server in bootstrap.split(","))
    return found


# names and errors ---------------------------------------------------------------------------------------------------


def names(table: Any = Settings, prefix: str = "") -> Iterator[str]:
    """The dotted name of every setting; tables of tables stand as `endpoints` and `budgets`."""
    for name, kind in _fields(table).items():
        if _fields(kind):
            yield from names(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _fields(table: Any) -> dict[str, Any]:
    """Names and types of a table's settings; none for what is no table. The runner's own bounds are plain dataclasses."""
    if isinstance(table, type) and issubclass(table, BaseModel):
        return {name: field.annotation for name, field in table.model_fields.items()}
    return get_type_hints(table) if is_dataclass(table) else {}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper().replace(".", "__")


def _known_names_only(environ: Mapping[str, str]) -> None:
    """A misspelt variable would be passed over in silence: pydantic-settings only looks for names it knows."""
    known = {variable(name) for name in names()} | {variable(name) for name in Settings.model_fields}
    for name in sorted(environ):
        said = name.upper()
        if not said.startswith(PREFIX) or said.startswith(f"{PREFIX}ENDPOINTS__") or _BY_KUBERNETES.fullmatch(said):
            continue
        if said not in known | OF_DEVELOPERS:
            raise Misconfigured(f"environment: no setting '{name}'{did_you_mean(name, known)}")


def _told(error: Any) -> str:
    """One of pydantic's errors in our words. The value is shown only where it can hold no secret."""
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"no setting '{name}'{did_you_mean(str(error['loc'][-1]), _beside(error['loc']))}"
    problem = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"setting '{name}' is missing"
    value = error["input"]
    if name in set(names()) and not re.search("password|key|token", name) and "@" not in str(value):
        problem = f"{value!r}: {problem}" if repr(value) not in problem else problem
    where = f"setting '{name}' ({variable(name)})" if name else "settings"
    return f"{where}: {problem}"


_OF_TABLES = {"endpoints": Endpoint, "budgets": Budget}
"""What stands in a table of tables."""


def _beside(loc: tuple[int | str, ...]) -> list[str]:
    """The names that could have stood where `loc` ends."""
    table: Any = Settings
    for part in loc[:-1]:
        table = _OF_TABLES.get(str(part)) or _fields(table).get(str(part), table)
    return list(_fields(table))
