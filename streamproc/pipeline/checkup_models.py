"""Endpoints, looked at: whether each replica lists its model, answers one tiny call, and has our time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import aiohttp

from streamproc.errors import Fatal, Rejected, Retryable
from streamproc.models.card import Served
from streamproc.models.endpoint import Endpoint, endpoints
from streamproc.models.transport import AiohttpTransport
from streamproc.pipeline.checkup import Finding, apart, of_error

DEADLINE_S: Final = 10.0
HELLO: Final = ({"type": "text", "text": "Answer with one word."},)


async def answers(served: Sequence[Served], environ: Mapping[str, str]) -> list[Finding]:
    """Each replica lists its model. One without a URL is built in."""
    async with AiohttpTransport() as transport:
        return [
            finding
            for one in served
            for finding in await asyncio.gather(*(_serves(one, r) for r in _replicas(one, environ, transport)))
        ] + [Finding(f"endpoint {one.name}", "ok", "built in") for one in served if not one.urls]


async def speaks(served: Sequence[Served], environ: Mapping[str, str]) -> list[Finding]:
    """The same, and each answers one tiny call; its clock is ours."""
    found: list[Finding] = []
    async with AiohttpTransport() as transport, aiohttp.ClientSession() as session:
        for one in served:
            for replica in _replicas(one, environ, transport):
                finding = await _serves(one, replica)
                if finding.verdict == "ok":
                    finding = await _calls(one, replica)
                found.append(finding)
                if finding.verdict != "unreachable":
                    found += await _its_clock(session, one, replica)
    return found + [Finding(f"endpoint {one.name}", "ok", "built in") for one in served if not one.urls]


def _replicas(one: Served, environ: Mapping[str, str], transport: AiohttpTransport) -> tuple[Endpoint, ...]:
    return endpoints(one, environ=environ, transport=transport) if one.urls else ()


async def _serves(one: Served, replica: Endpoint) -> Finding:
    hop = f"endpoint {one.name} at {replica.url}"
    try:
        there = await replica.serves(deadline_s=DEADLINE_S)
    except (Retryable, Rejected, Fatal) as e:
        return of_error(hop, e, remedy="Is the URL that of the API, ending in /v1, and the key the right one?")
    if replica.manner.model not in there:
        served = ", ".join(there[:5]) or "nothing"
        return Finding(
            hop,
            "failed",
            f"it serves {served}, not {replica.manner.model}",
            f'Say served_name = "{there[0]}" under [endpoints.{one.name}]'
            if there
            else "Look at the log of its server",
        )
    return Finding(hop, "ok", f"it serves {replica.manner.model}")


async def _calls(one: Served, replica: Endpoint) -> Finding:
    hop, began = f"endpoint {one.name} at {replica.url}", time.monotonic()
    try:
        reply = await replica.raw(HELLO, {replica.manner.length_key: 8}, deadline_s=DEADLINE_S)
    except (Retryable, Rejected, Fatal) as e:
        return of_error(hop, e, remedy=f"streamproc models check {one.name} says what it honours")
    told = "and counts tokens" if reply.tokens else "and counts no tokens"
    return Finding(hop, "ok", f"it answers in {time.monotonic() - began:.1f} s {told}")


async def _its_clock(session: aiohttp.ClientSession, one: Served, replica: Endpoint) -> list[Finding]:
    """By the Date header of whatever it answers; a server without one says nothing of its clock."""
    try:
        async with session.get(
            f"{replica.url.rstrip('/')}/models", timeout=aiohttp.ClientTimeout(DEADLINE_S)
        ) as answer:
            said = answer.headers.get("Date")
    except (aiohttp.ClientError, TimeoutError, OSError) as e:
        return [Finding(f"clock of {one.name}", "note", f"it could not be asked: {type(e).__name__}")]
    return [apart(f"clock of {one.name} at {replica.url}", said, datetime.now(UTC))] if said else []
