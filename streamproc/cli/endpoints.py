"""ENDPOINT and URI as people type them, and what the settings say of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.models.budget import Budgets
    from streamproc.models.card import Served
    from streamproc.settings import Settings


def named(told: Settings, models: Sequence[str]) -> tuple[tuple[Served, ...], list[str]]:
    """Endpoints that were named, and `STAGE=NAME` as a task is told."""
    from streamproc.models.card import Served, served

    found, named = dict[str, Served](), list[str]()
    for said in models:
        stage, equals, endpoint = said.partition("=")
        if not equals or not endpoint:
            raise Misconfigured(f"--model {said}: it looks like STAGE=ENDPOINT")
        one = served_as(told, endpoint) if "@" not in endpoint else served(endpoint)
        if (before := found.setdefault(one.name, one)) != one:
            raise Misconfigured(
                f"--model {said}: '{one.name}' is at {', '.join(before.urls)} already; several URLs are CARD@URL,URL"
            )
        named.append(f"{stage}={one.name}")
    return tuple(found.values()), named


def served_as(told: Settings, name: str) -> Served:
    """An endpoint by its name; the observer is built in, where nobody says that it is elsewhere."""
    from streamproc.models.card import Served, card, served
    from streamproc.task import OBSERVER

    if name == OBSERVER and name not in told.endpoints:
        return Served(OBSERVER, card(OBSERVER), ())
    return served(name, told.endpoints, base_url=told.openai.base_url)


def with_stand_ins(told: Settings, served: Sequence[Served]) -> list[Served]:
    """These, and whoever is asked in their place while they are out."""
    found = {one.name: one for one in served}
    waiting = list(served)
    while waiting:
        for name in waiting.pop().stand_ins:
            if name not in found:
                found[name] = served_as(told, name)
                waiting.append(found[name])
    return list(found.values())


def budgets(told: Settings) -> Budgets:
    """What may be spent for sources and tasks."""
    from streamproc.models.budget import Budgets, Limits

    return Budgets({name: Limits(**limits.model_dump()) for name, limits in told.budgets.items()})


def no_secret_for_others(told: Settings, uri: str) -> None:
    """A source's address is read by everybody who reads the topic: a password in it is named, and not told."""
    from streamproc.settings import KafkaAt, parse_bus
    from streamproc.video import address

    if isinstance(parse_bus(told.bus), KafkaAt) and address.literal(uri):
        raise Misconfigured(
            f"'{address.redact(uri)}' has a password or key in it, and on Kafka everybody could read that. Write "
            "${NAME} in its place: whoever opens the source fills it in, from the environment or a file that NAME_FILE names"
        )


def environ(told: Settings) -> Mapping[str, str]:
    """Where keys are looked up: the environment, and the one key that settings may hold."""
    key = told.openai.api_key
    return {**os.environ, **({"OPENAI_API_KEY": key.get_secret_value()} if key else {})}
