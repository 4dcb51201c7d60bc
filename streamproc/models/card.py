"""One card a model: how it is served, and how it is spoken to. The truth is `gpu/*.toml`; this room reads it.

A value that nobody has a source for is left out: what is absent is not known, and a server is asked (`streamproc models
check`) before anything is written down. A card knows no URL of yours, no key and no network; `Served` is a card at its
URLs.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from streamproc.errors import Misconfigured, did_you_mean
from streamproc.models.image_tokens import RULES, BySize, Count, Positive
from streamproc.topics import data

Media = Literal["images", "clips", "video"]
JsonMode = Literal["schema", "object", "text"]
LengthKey = Literal["max_tokens", "max_completion_tokens"]

NAME = r"[a-z0-9][a-z0-9.-]*"
"""Services are called after models, and topics and groups after services."""

GENERIC = "openai-compatible"
"""The card of whatever has no card."""

LOCAL = "http://127.0.0.1:8000/v1"
"""Where `vllm serve` answers unless told otherwise."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# how it is spoken to ------------------------------------------------------------------------------------------------


class Speak(_Table):
    """How prompts must look. The defaults are what any OpenAI-compatible server takes."""

    image_limit: Count | None = None
    """Pictures in one prompt; 0: text only."""
    context_tokens: Positive | None = None
    """Prompt and answer together."""
    tokens_per_image: Positive | None = None
    """Of any size; or `tokens_by_size`."""
    tokens_by_size: BySize | None = None
    """How the model's processor counts."""
    media: Media = "images"
    """Frames as single pictures; as clips of a few frames; or the whole window as one video."""
    label: str | None = None
    """Text before each picture or clip; may use {number}, {time_s} and {until_s}."""
    json_mode: JsonMode = "text"
    """`schema`: held to a JSON schema; `object`: to any JSON; `text`: asked in words."""
    system_prefix: str | None = None
    """Stands before every system prompt."""
    length_key: LengthKey = "max_tokens"
    """What the limit of an answer is called; OpenAI's models that think refuse the older name."""
    samples_at_once: bool = False
    """`n` is honoured: several samples share one upload and one prefill."""
    uuids: bool = False
    """Pictures may go by uuid, their bytes left out once the server has them."""
    extra: dict[str, Any] = {}
    """Into every body as it is."""

    @field_validator("label")
    @classmethod
    def _label_can_be_filled(cls, label: str | None) -> str | None:
        if label is not None:
            try:
                label.format(number=1, time_s=0.0, until_s=0.0)
            except (KeyError, IndexError, ValueError) as e:
                raise ValueError(f"it may use {{number}}, {{time_s}} and {{until_s}}, not {e}") from None
        return label

    def image_tokens(self, width: int, height: int) -> int | None:
        """Of one picture of this size; None where nobody knows."""
        return self.tokens_by_size.tokens(width, height) if self.tokens_by_size else self.tokens_per_image


class Sampling(_Table):
    """What goes with every call unless the task says otherwise; what is absent is left to the server."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: int | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None

    def params(self) -> dict[str, float]:
        return self.model_dump(exclude_none=True)


class Price(_Table):
    """US dollars a million tokens, on the day that `as_of` says."""

    input: Annotated[float, Field(ge=0)]
    cached: Annotated[float, Field(ge=0)] | None = None
    """Input read from a cache; absent: as other input."""
    output: Annotated[float, Field(ge=0)]
    as_of: str

    def of(self, *, into: int, cached: int, out: int) -> float:
        """Dollars for a call; `into` counts the cached tokens too."""
        cached_at = self.input if self.cached is None else self.cached
        return ((into - cached) * self.input + cached * cached_at + out * self.output) / 1e6


class Quota(_Table):
    """How many calls an API allows; what is absent is not limited, or not known."""

    calls_per_minute: Positive | None = None
    calls_per_day: Positive | None = None


# how it is served ---------------------------------------------------------------------------------------------------


class Serve(_Table):
    """Options of `vllm serve`, by its own names. What stands here reaches the command as it is."""

    tensor_parallel_size: Positive | None = None
    enable_expert_parallel: bool | None = None
    quantization: str | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32", "half", "float"] | None = None
    kv_cache_dtype: str | None = None
    max_model_len: Positive | None = None
    max_num_seqs: Positive | None = None
    max_num_batched_tokens: Positive | None = None
    """Also the size of the encoder cache; `serve` counts it from frames × tokens × streams."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    limit_mm_per_prompt: dict[Literal["image", "video", "audio"], Count] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    media_io_kwargs: dict[str, dict[str, Any]] | None = None
    mm_encoder_tp_mode: Literal["weights", "data"] | None = None
    mm_processor_cache_type: Literal["lru", "shm"] | None = None
    video_pruning_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    reasoning_parser: str | None = None
    tool_call_parser: str | None = None
    enable_auto_tool_choice: bool | None = None
    trust_remote_code: bool | None = None
    chat_template: str | None = None
    tokenizer_mode: str | None = None
    config_format: str | None = None
    load_format: str | None = None
    hf_overrides: dict[str, Any] | None = None
    enforce_eager: bool | None = None
    enable_prefix_caching: bool | None = None
    scheduling_policy: Literal["fcfs", "priority"] | None = None
    """`priority` lets live windows go before replays; without it vLLM passes over a call's priority in silence."""
    enable_prompt_tokens_details: bool | None = None
    """Tells how many tokens were cached, which the price of a call depends on."""
    enable_lora: bool | None = None
    lora_modules: tuple[str, ...] | None = None
    max_lora_rank: Positive | None = None
    default_mm_loras: dict[Literal["image", "video", "audio"], str] | None = None
    """Adapters that every prompt with such a medium goes through; `{weights}` stands for the folder of the weights."""


class Card(_Table):
    """Everything that is known of one model."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    about: str
    model: str
    """As its maker names it: the weights that are served, and what an API calls it."""
    url: str | None = None
    """Of the API that offers it; absent: serve it yourself."""
    api_key_env: str | None = None
    """The variable that holds the API's key."""
    speak: Speak = Speak()
    sampling: Sampling = Sampling()
    price: Price | None = None
    quota: Quota = Quota()
    serve: Serve | None = None
    """Absent: vLLM does not serve it; `notes` say why."""
    notes: tuple[str, ...] = ()
    """What was fought with before, and what is done about it."""
    sources: tuple[str, ...]
    """Where the values come from."""

    @model_validator(mode="after")
    def _context_fits_what_is_served(self) -> Self:
        served, spoken = self.serve and self.serve.max_model_len, self.speak.context_tokens
        if served and spoken != served:
            raise ValueError(
                f"speak.context_tokens is {spoken} where serve.max_model_len is {served}: prompts are counted by it"
            )
        return self

    @property
    def processor(self) -> str:
        """What else decides how a picture is understood: a part of its uuid."""
        kwargs = self.serve.mm_processor_kwargs if self.serve else None
        return f"{self.model} {sorted((kwargs or {}).items())}"


# reading ------------------------------------------------------------------------------------------------------------


@cache
def cards() -> Mapping[str, Card]:
    """Every card of `gpu/*.toml`, by name."""
    files = sorted((f for f in data("gpu").iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): read(f) for f in files}


def card(name: str) -> Card:
    """A card by its name, or by the path of a file of your own."""
    if name.endswith(".toml"):
        return read(Path(name))
    try:
        return cards()[name]
    except KeyError:
        raise Misconfigured(
            f"no card '{name}'{did_you_mean(name, cards())}; `streamproc models list` shows all"
        ) from None


def read(file: Traversable) -> Card:
    """A card from its file; whatever is wrong with it is told in one error."""
    try:
        return Card(name=file.name.removesuffix(".toml"), **tomllib.loads(file.read_text()))
    except ValidationError as e:
        raise Misconfigured("; ".join(f"card '{file}': {_told(error)}" for error in e.errors())) from e
    except (OSError, TypeError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise Misconfigured(f"card '{file}' cannot be read: {e}") from e


def _told(error: Any) -> str:
    loc, problem = [str(part) for part in error["loc"]], str(error["msg"]).removeprefix("Value error, ")
    where = ".".join(loc)
    if error["type"] == "extra_forbidden":
        return f"no key '{where}'{did_you_mean(loc[-1], _keys(loc[:-1]))}"
    if not loc:
        return problem
    if error["type"] == "missing":
        return f"'{where}' is missing"
    return f"'{where}' is {error['input']!r}: {problem}"


def _keys(path: Iterable[str]) -> list[str]:
    """The keys that may stand in the table at `path`; a rule by size has its kind in the path."""
    table: type[BaseModel] = Card
    for part in path:
        found = RULES.get(part) or table.model_fields[part].annotation
        tables = [t for t in (found, *get_args(found)) if isinstance(t, type) and issubclass(t, BaseModel)]
        table = tables[0] if tables else table
    return list(table.model_fields)


# endpoints ----------------------------------------------------------------------------------------------------------


class Named(Protocol):
    """`[endpoints.NAME]` of the settings."""

    @property
    def card(self) -> str: ...
    @property
    def urls(self) -> Sequence[str]: ...
    @property
    def api_key_env(self) -> str | None: ...
    @property
    def served_name(self) -> str | None: ...
    @property
    def weights(self) -> str | None: ...
    @property
    def calls_per_minute(self) -> int | None: ...
    @property
    def calls_per_day(self) -> int | None: ...
    @property
    def stand_ins(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Served:
    """A model where it is served: several URLs are replicas of each other."""

    name: str
    """As services are called after it: `detect.NAME`."""
    card: Card
    urls: tuple[str, ...]
    api_key_env: str | None = None
    served_name: str | None = None
    weights: str | None = None
    """A folder of weights, in place of those that the card names."""
    quota: Quota | None = None
    """In place of what the card says that the API allows."""
    stand_ins: tuple[str, ...] = ()
    """Models that are asked while this one is out, the first that is up."""

    @property
    def allowed(self) -> Quota:
        return self.quota or self.card.quota

    @property
    def model(self) -> str:
        """What it is called in a call."""
        return self.served_name or self.card.model

    def key(self, environ: Mapping[str, str]) -> str | None:
        """The key, from its variable and nowhere else; None where no key is needed."""
        if self.api_key_env is None:
            return None
        if not (key := environ.get(self.api_key_env, "").strip()):
            raise Misconfigured(
                f"endpoint '{self.name}' needs its key in the variable {self.api_key_env}, which is empty"
            )
        return key


def served(text: str, named: Mapping[str, Named] | None = None, *, base_url: str | None = None) -> Served:
    """What `NAME` or `CARD@URL[,URL…]` stands for. A name is one of `named` first, and else a card, which is looked for
    at its API's URL, at `base_url`, or on this machine."""
    named = named or {}
    name, at, where = text.partition("@")
    if at:
        if name not in cards() and not name.endswith(".toml"):
            raise Misconfigured(
                f"no card '{name}'{did_you_mean(name, cards())}; `streamproc models list` shows all. A server of your own "
                f"is {GENERIC}@URL, or [endpoints.NAME] of the settings, where `served_name` says what it calls its model"
            )
        found = card(name)
        urls = _urls(name, where.split(","))
        return Served(found.name, found, urls, _own_key(found, urls))
    if name in named:
        if not re.fullmatch(NAME, name):
            raise Misconfigured(
                f"endpoint '{name}': services are called after it, so it has only a-z, 0-9, '.' and '-'"
            )
        said = named[name]
        found, urls = card(said.card), _urls(name, said.urls)
        allowed = {"calls_per_minute": said.calls_per_minute, "calls_per_day": said.calls_per_day}
        return Served(
            name,
            found,
            urls,
            said.api_key_env or _own_key(found, urls),
            said.served_name,
            said.weights,
            quota=found.quota.model_copy(update={k: v for k, v in allowed.items() if v is not None}),
            stand_ins=tuple(said.stand_ins),
        )
    if name not in cards() and not name.endswith(".toml"):
        raise Misconfigured(
            f"'{name}' is no endpoint of the settings and no card{did_you_mean(name, [*named, *cards()])};"
            " an endpoint is NAME or CARD@URL[,URL…]"
        )
    found = card(name)
    if found.url is None and base_url:
        return Served(found.name, found, _urls(name, [base_url]), "OPENAI_API_KEY")
    return Served(found.name, found, _urls(name, [found.url or LOCAL]), found.api_key_env)


def _own_key(found: Card, urls: Iterable[str]) -> str | None:
    """The variable that the card names, where all URLs are its own API's: a key goes to nobody else unasked."""
    host = urlsplit(found.url).netloc if found.url else None
    return found.api_key_env if all(urlsplit(url).netloc == host for url in urls) else None


def _urls(name: str, urls: Iterable[str]) -> tuple[str, ...]:
    tidy = tuple(url.strip().rstrip("/") for url in urls)
    for url in tidy:
        parts = urlsplit(url)
        if "@" in parts.netloc:  # not shown: what stands before it is a password
            raise Misconfigured(f"endpoint '{name}': keys stand in a variable (api_key_env), not in a URL")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Misconfigured(f"endpoint '{name}': '{url}' is no URL; it looks like {LOCAL}")
    if len(set(tidy)) < len(tidy):
        raise Misconfigured(f"endpoint '{name}' names a URL twice; replicas are different servers")
    return tidy
