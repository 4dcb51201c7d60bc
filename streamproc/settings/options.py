"""What can be set: each option once, with its type, its default, its bounds and what it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from streamproc.errors import Misconfigured
from streamproc.runner import Backoff, Bounds
from streamproc.settings.opening import KafkaAt, parse_bus

LEVELS = {"warn": "warning", "critical": "error", "fatal": "error", "trace": "debug", "notset": "debug"}
"""What other programs call the nearest of ours: LOG_LEVEL is theirs too."""

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
    calls_per_minute: Positive | None = None
    """What the provider allows; by default as the card says. Calls wait beyond it."""
    calls_per_day: Positive | None = None
    stand_ins: tuple[str, ...] = ()
    """Other endpoints, asked in its place while it is out: the first that is up."""


class Budget(Group):
    """What may be spent for a source or a task, by each process: near its end calls get smaller, at its end they stop."""

    tokens: Positive | None = None
    calls: Positive | None = None
    money: Annotated[float, Field(gt=0)] | None = None
    """In dollars, by the prices of the cards: a model whose card has none costs nothing."""

    @model_validator(mode="after")
    def _something_is_limited(self) -> Self:
        if self.tokens is self.calls is self.money is None:
            raise ValueError("it limits nothing: say tokens, calls or money")
        return self


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
    budgets: dict[str, Budget] = {}
    """By `task:NAME` and `source:STREAM`; a call counts for both."""
    openai: OpenAI = OpenAI()
    hf: HuggingFace = HuggingFace()
    otel: Otel = Otel()

    @field_validator("log_level", mode="before")
    @classmethod
    def _as_others_write_it(cls, level: object) -> object:
        told = level.lower() if isinstance(level, str) else level
        return LEVELS.get(told, told) if isinstance(told, str) else told

    @field_validator("budgets")
    @classmethod
    def _of_a_task_or_a_source(cls, budgets: dict[str, Budget]) -> dict[str, Budget]:
        for name in budgets:
            if not name.startswith(("task:", "source:")) or name.endswith(":"):
                raise ValueError(f"'{name}' is no budget: it looks like 'task:NAME' or 'source:STREAM'")
        return budgets

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
