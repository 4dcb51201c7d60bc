"""A model where it is served, made ready to be asked. The one way from settings to the pool that loads openai's client."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from streamproc.messages import Tokens
from streamproc.models.budget import Quota
from streamproc.models.card import Served
from streamproc.models.desk import Model
from streamproc.models.endpoint import endpoints
from streamproc.models.limiter import STARTS_AT

BATCHING_STARTS_AT = 64
"""Calls that a batching server is given at once before anything is known of it: it takes hundreds, and finding that out
from a few costs a dozen round trips of what may be seconds each. Where it is too many the limiter is down again as soon."""


def model_of(served: Served, *, environ: Mapping[str, str], transport: httpx2.AsyncBaseTransport) -> Model:
    """A model where it is served, as its card and the settings say; its URLs weigh the same."""

    def price(tokens: Tokens) -> float:
        asked = served.card.price
        return asked.of(into=tokens.into, cached=tokens.cached, out=tokens.out) if asked else 0.0

    replicas = [(e, 1.0) for e in endpoints(served, environ=environ, transport=transport)]
    return Model(
        name=served.name,
        endpoints=replicas,
        sampling=served.card.sampling.params(),
        price=price,
        quota=_quota(served),
        stand_ins=served.stand_ins,
        starts_at=BATCHING_STARTS_AT if served.card.serve else STARTS_AT,
    )


def _quota(served: Served) -> Quota | None:
    allowed = served.allowed
    if allowed.calls_per_minute is None and allowed.calls_per_day is None:
        return None
    return Quota(per_minute=allowed.calls_per_minute, per_day=allowed.calls_per_day)
