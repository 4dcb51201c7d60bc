"""Settings of a process: where the bus is, what it may hold in flight, which endpoints there are. No task, no prompt.

Options > environment > `streamproc.toml` > defaults. Every setting is `STREAMPROC_NAME`, a nested one
`STREAMPROC_GROUP__NAME`; the names that people of Kafka, OpenAI and Hugging Face have already are read too. Nothing is
read before `load` is called.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import EnvSettingsSource, SettingsError

from streamproc.errors import Misconfigured, did_you_mean
from streamproc.runner import Backoff, Bounds

if TYPE_CHECKING:
    from streamproc.bus import claims
    from streamproc.bus.contract import Bus

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

LEVELS = {"warn": "warning", "critical": "error", "fatal": "error", "trace": "debug", "notset": "debug"}
"""What other programs call the nearest of ours: LOG_LEVEL is theirs too."""

PARTITIONS = 16
"""Of a new deployment that does not say."""

OF_DEVELOPERS = {"STREAMPROC_KAFKA_CACHE", "STREAMPROC_TEST_FOLDER"}
"""Read by deploy/ and tests/, and no settings of a process."""

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Group(BaseModel):
    """Settings that belong together; a table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Kafka(Group):
    """How a Kafka broker is spoken to."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    cafile: Path | None = None
    """Who signed the broker's certificate; without it the system's authorities are asked."""

    @field_validator("protocol", "mechanism", mode="before")
    @classmethod
    def _as_others_write_it(cls, name: object) -> object:
        return name.upper() if isinstance(name, str) else name

    def check(self) -> None:
        """What is said goes together; only asked where the bus is Kafka, for the environment may speak to others."""
        sasl = self.protocol.startswith("SASL")
        if sasl and not (self.mechanism and self.username and self.password):
            raise ValueError(f"kafka.protocol {self.protocol} needs kafka.mechanism, kafka.username and kafka.password")
        if self.mechanism and not sasl:
            raise ValueError(
                f"kafka.mechanism {self.mechanism} needs kafka.protocol SASL_SSL or SASL_PLAINTEXT, not {self.protocol}"
            )


class Http(Group):
    """Health, metrics and the page."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """0: any free one."""


class Embedded(Group):
    """The bus of one machine."""

    heartbeat_s: Seconds | None = None
    """By default a fifth of the session. Kafka's client beats as it sees fit."""
    retention_bytes: Positive | None = None
    """The oldest records make room beyond this, unless somebody has yet to read them."""


class Claims(Group):
    """Where payloads go that are larger than their topic allows."""

    store: str | None = None
    """A folder, or s3://bucket/prefix; without one they are rejected."""
    threshold_bytes: Positive | None = None
    """Larger ones are checked in; by default what the topic allows."""


class Endpoint(Group):
    """A named model: a card, and where it is served."""

    card: str
    urls: Annotated[tuple[str, ...], Field(min_length=1)]
    api_key_env: str | None = None
    """The variable that holds the key: the key itself stands in no file."""
    served_name: str | None = None
    weights: str | None = None


class OpenAI(Group):
    """The endpoint that OpenAI's own client would speak to."""

    base_url: str | None = None
    api_key: SecretStr | None = None


class HuggingFace(Group):
    """Where weights come from and lie."""

    token: SecretStr | None = None
    home: Path | None = None


class Otel(Group):
    """Where traces go, with the extra `otel`."""

    endpoint: str | None = None


class Settings(Group):
    """All of a process's settings, checked. `load` makes one."""

    bus: str = "embedded:./streamproc.db"
    """embedded:PATH or kafka://host:port[,…]"""
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,100}$")] = ""
    """Stands before every topic, group and transactional id: two deployments share a broker by it."""
    partitions: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Of every topic, fixed for life: choose for the processes you will ever want. By default as many as there are, or 16."""
    replication: Positive | None = None
    """Of topics that are created; by default 3, or 1 where there are fewer than three brokers."""
    session_s: Seconds = 10
    """A process that is silent for so long has lost its leases."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    kafka: Kafka = Kafka()
    embedded: Embedded = Embedded()
    http: Http = Http()
    bounds: Bounds = Bounds()
    backoff: Backoff = Backoff()
    claims: Claims = Claims()
    endpoints: dict[str, Endpoint] = {}
    openai: OpenAI = OpenAI()
    hf: HuggingFace = HuggingFace()
    otel: Otel = Otel()

    @field_validator("log_level", mode="before")
    @classmethod
    def _as_others_write_it(cls, level: object) -> object:
        told = level.lower() if isinstance(level, str) else level
        return LEVELS.get(told, told) if isinstance(told, str) else told

    @field_validator("bus")
    @classmethod
    def _bus_can_be_read(cls, bus: str) -> str:
        try:
            parse_bus(bus)
        except Misconfigured as e:
            raise ValueError(str(e)) from None
        return bus

    @model_validator(mode="after")
    def _kafka_can_be_spoken_to(self) -> Self:
        if isinstance(parse_bus(self.bus), KafkaAt):
            self.kafka.check()
        return self

    @model_validator(mode="after")
    def _a_session_outlives_a_lost_heartbeat(self) -> Self:
        beat = self.embedded.heartbeat_s
        if beat is not None and beat * 2 > self.session_s:
            raise ValueError(f"session_s {self.session_s:g} must be at least twice embedded.heartbeat_s {beat:g}")
        return self


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
    """The dotted name of every setting; endpoints are a table of tables, so they stand as `endpoints`."""
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


def _beside(loc: tuple[int | str, ...]) -> list[str]:
    """The names that could have stood where `loc` ends."""
    table: Any = Settings
    for part in loc[:-1]:
        table = Endpoint if part == "endpoints" else _fields(table).get(str(part), table)
    return list(_fields(table))


# the bus ------------------------------------------------------------------------------------------------------------


class EmbeddedAt(NamedTuple):
    path: Path


class KafkaAt(NamedTuple):
    bootstrap: str


_SERVER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}")


def parse_bus(text: str) -> EmbeddedAt | KafkaAt:
    """Where a bus is: `embedded:PATH` or `kafka://host:port[,…]`."""
    kind, colon, where = text.partition(":")
    if kind == "embedded" and colon and where:
        return EmbeddedAt(Path(where).expanduser())
    if kind == "kafka" and where.startswith("//"):
        servers = where.removeprefix("//").rstrip("/")
        if "@" in servers:  # not shown: what stands before it is a password
            raise Misconfigured(
                "a bus names no user: give KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD in the environment"
            )
        if all(_SERVER.fullmatch(server) for server in servers.split(",")):
            return KafkaAt(servers)
    shown = f"bus '{text}'" if "@" not in text else "the bus"  # a password may stand before it
    raise Misconfigured(f"{shown} is neither embedded:PATH nor kafka://host:port[,host:port…]")


async def open_bus(settings: Settings) -> Bus:
    """The bus that the settings name, open. Only what it needs is imported: a laptop needs no Kafka client."""
    at = parse_bus(settings.bus)
    if isinstance(at, EmbeddedAt):
        from streamproc.bus import embedded

        return await embedded.Embedded.open(
            at.path,
            partitions=settings.partitions,
            prefix=settings.topic_prefix,
            session_s=settings.session_s,
            heartbeat_s=settings.embedded.heartbeat_s,
            retention_bytes=settings.embedded.retention_bytes,
        )
    from streamproc.bus import kafka

    said = settings.kafka
    return await kafka.Kafka.open(
        at.bootstrap,
        prefix=settings.topic_prefix,
        partitions=settings.partitions or PARTITIONS,
        replication=settings.replication,
        session_s=settings.session_s,
        security=kafka.KafkaSecurity(
            protocol=said.protocol,
            mechanism=said.mechanism,
            username=said.username,
            password=said.password.get_secret_value() if said.password else None,
            cafile=said.cafile,
        ),
    )


def open_claims(settings: Settings) -> claims.Claims:
    """Claim checks over the store that the settings name; without one, what is too large is rejected."""
    from streamproc.bus import claims

    said = settings.claims
    return claims.Claims(claims.open_store(said.store) if said.store else None, threshold_bytes=said.threshold_bytes)
