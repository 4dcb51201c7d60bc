"""The probe tells what a server honours from what it passes over in silence."""

from __future__ import annotations

import pytest

from streamproc.errors import Retryable, Unreachable
from streamproc.models.body import Manner
from streamproc.models.card import served
from streamproc.models.endpoint import Endpoint
from streamproc.models.failures import Garbled, ServerFailed
from streamproc.models.observer import ABILITIES, Settings, running
from streamproc.models.probe import Finding, Probe, check
from streamproc.models.transport import AiohttpTransport
from tests.models.test_endpoint import _response, speaking


async def probed(settings: Settings, model: str = "observer") -> dict[str, Finding]:
    async with running(settings) as (url, _), AiohttpTransport() as transport:
        found = await Probe(Endpoint(url, Manner(model=model), transport=transport), fresh="1").all()
    return {f.ability: f for f in found}


async def test_a_server_that_honours_everything_is_told_so() -> None:
    found = await probed(Settings(image_limit=5, context_tokens=9000))
    assert {name for name, f in found.items() if f.verdict == "yes"} == {
        *("model", "images", "uuid", "video", "n", "json_schema"),
        *("choice", "logprobs", "load", "stream", "cached", "context", "max_tokens"),
    }
    assert [f.write for f in found.values() if f.write] == [
        "image_limit = 5",
        "uuids = true",
        'media = "clips"',
        "samples_at_once = true",
        'json_mode = "schema"',
        "context_tokens = 9000",
    ]


@pytest.mark.parametrize("ability", sorted(ABILITIES))
async def test_what_is_passed_over_in_silence_is_noticed(ability: str) -> None:
    found = await probed(Settings(honours=ABILITIES - {ability}, image_limit=4))
    assert [name for name, f in found.items() if f.verdict == "no"] == [ability]


async def test_a_server_that_wants_the_newer_name_of_the_limit_is_asked_by_it() -> None:
    found = await probed(Settings(honours=ABILITIES - {"max_tokens"}, image_limit=5, context_tokens=9000))
    assert found["max_tokens"].write == 'length_key = "max_completion_tokens"'
    assert "Use 'max_completion_tokens'" in found["max_tokens"].seen
    assert found["context"].write == "context_tokens = 9000"
    assert found["images"].write == "image_limit = 5"


async def test_every_replica_of_an_endpoint_is_checked() -> None:
    async with running(Settings(image_limit=2)) as (one, _), running(Settings(image_limit=4)) as (two, _):
        found = await check(served(f"observer@{one},{two}"), environ={}, fresh="1")
    assert [f.write for url in (one, two) for f in found[url] if f.ability == "images"] == [
        "image_limit = 2",
        "image_limit = 4",
    ]


async def test_another_name_is_told_with_what_to_write() -> None:
    found = await probed(Settings(model="observer"), model="gpt-4o")
    assert list(found) == ["model"]
    assert found["model"].write == 'served_name = "observer"'


async def faulty(fault: str) -> dict[str, Finding]:
    async with running(Settings()) as (url, _), AiohttpTransport() as transport:
        endpoint = Endpoint(url, Manner(model="observer"), transport=transport, headers={"x-observer": fault})
        return {f.ability: f for f in await Probe(endpoint, fresh="1").all()}


async def test_a_server_that_lists_a_model_and_answers_as_another_is_told() -> None:
    found = await faulty("model=evil/other-9b")
    assert found["model"].verdict == "yes"
    assert found["name"].verdict == "no"
    assert "asked for observer it answers as 'evil/other-9b'" in found["name"].seen
    assert found["name"].write == 'served_name = "evil/other-9b"'


@pytest.mark.parametrize(("fault", "error"), [("garbage", ServerFailed), ("empty", Garbled), ("401", Unreachable)])
async def test_a_server_that_lists_its_models_and_answers_nothing_is_an_error(
    fault: str, error: type[Retryable]
) -> None:
    """Thirteen findings of which none is clear would read as a server that was checked."""
    with pytest.raises(error):
        await faulty(fault)


async def test_nobody_there_is_an_error_and_no_finding() -> None:
    async with AiohttpTransport() as transport, speaking(_response(401, {"error": "no"})) as url:
        with pytest.raises(Unreachable):
            await Probe(Endpoint(url, Manner(model="m"), transport=transport), fresh="1").all()
