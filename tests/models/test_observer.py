"""The observer answers over real HTTP what it measured, in the form that was asked for, always the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jsonschema
import numpy as np
import orjson
import pybase64
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.models.observer import Observer, Settings, running
from streamproc.models.observer.answers import Facts, Impossible, by_schema, labels_in
from streamproc.models.observer.pictures import compare, measure
from streamproc.models.observer.tables import rows_in, telling


def jpeg(
    colour: tuple[int, int, int] = (60, 120, 60), patch: tuple[int, int, int] | None = None, at: int = 20
) -> bytes:
    picture = np.full((112, 196, 3), colour, np.uint8)
    if patch is not None:
        picture[30:70, at : at + 40] = patch
    return bytes(simplejpeg.encode_jpeg(picture, quality=90))


PITCH, RED, YELLOW = (60, 120, 60), (220, 20, 20), (230, 210, 20)


def shown(*jpegs: bytes) -> list[dict[str, Any]]:
    url = "data:image/jpeg;base64,"
    return [{"type": "image_url", "image_url": {"url": url + pybase64.b64encode_as_string(j)}} for j in jpegs]


def asked(text: str, *jpegs: bytes, **more: Any) -> dict[str, Any]:
    content = [*shown(*jpegs), {"type": "text", "text": text}]
    return {"model": "observer", "messages": [{"role": "user", "content": content}], **more}


class Client:
    def __init__(self, url: str, observer: Observer, session: aiohttp.ClientSession) -> None:
        self.url, self.observer, self.session = url, observer, session

    async def post(self, body: Any, **headers: str) -> tuple[int, Any]:
        async with self.session.post(f"{self.url}/chat/completions", data=orjson.dumps(body), headers=headers) as r:
            return r.status, await r.json()

    async def text(self, body: Any) -> str:
        status, answer = await self.post(body)
        assert status == 200, answer
        return str(answer["choices"][0]["message"]["content"])


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running() as (url, observer), aiohttp.ClientSession() as session:
        yield Client(url, observer, session)


EVENTS = (
    "- Fouls/Cards: Foul, Yellow card, Red card\n- Other: Corner, Replay\nIf nothing happens, output exactly: None."
)


async def test_a_label_fires_where_a_word_of_it_was_measured(client: Client) -> None:
    answer = orjson.loads(await client.text(asked(EVENTS, jpeg(), jpeg(patch=RED))))
    assert [e["label"] for e in answer if e["label"] != "Foul"] == ["Red card"]
    assert "no AI" in answer[0]["details"]


async def test_where_nothing_fires_the_null_class_is_exactly_none(client: Client) -> None:
    assert await client.text(asked(EVENTS, jpeg(), jpeg())) == "None"


async def test_any_json_is_an_object_with_the_events_or_the_text(client: Client) -> None:
    form = {"type": "json_object"}
    some = orjson.loads(await client.text(asked(EVENTS, jpeg(), jpeg(patch=RED), response_format=form)))
    none = orjson.loads(await client.text(asked(EVENTS, jpeg(), jpeg(), response_format=form)))
    text = orjson.loads(await client.text(asked("What is to be seen?", jpeg(), response_format=form)))
    assert "Red card" in [e["label"] for e in some["events"]]
    assert none == {"events": []}
    assert "1 frames" in text["text"]


async def test_without_labels_it_writes_a_caption(client: Client) -> None:
    assert "2 frames" in await client.text(asked("What is to be seen?", jpeg(), jpeg()))


async def test_a_cut_is_another_picture_and_motion_is_not(client: Client) -> None:
    schema = {"type": "object", "properties": {"kind": {"enum": ["none", "cut"]}}, "required": ["kind"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    moved = await client.text(asked("?", jpeg(patch=RED, at=20), jpeg(patch=RED, at=90), response_format=form))
    other = await client.text(asked("?", jpeg(), jpeg((250, 250, 250)), response_format=form))
    assert (orjson.loads(moved)["kind"], orjson.loads(other)["kind"]) == ("none", "cut")


async def test_the_same_question_has_the_same_answer_and_samples_differ(client: Client) -> None:
    schema = {
        "type": "object",
        "properties": {"confidence": {"type": "number", "minimum": 0, "maximum": 1}},
        "required": ["confidence"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = asked("?", jpeg(), jpeg(patch=RED), response_format=form, n=4, temperature=0.6)
    (_, one), (_, two) = await client.post(body), await client.post(body)
    texts = [c["message"]["content"] for c in one["choices"]]
    assert texts == [c["message"]["content"] for c in two["choices"]]
    assert len(texts) == 4
    assert len(set(texts)) > 1


async def test_choices_logprobs_and_usage_are_as_vllm_has_them(client: Client) -> None:
    body = asked(
        "?", jpeg(), jpeg(patch=RED), structured_outputs={"choice": ["no", "red"]}, logprobs=True, top_logprobs=2
    )
    _, answer = await client.post(body)
    choice = answer["choices"][0]
    assert choice["message"]["content"] == "red"
    assert len(choice["logprobs"]["content"][0]["top_logprobs"]) == 2
    assert answer["usage"]["prompt_tokens"] > 2 * 28


async def test_a_streamed_answer_is_the_whole_one_in_pieces(client: Client) -> None:
    body = asked("What is to be seen?", jpeg(), jpeg())
    whole = await client.text(body)
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    async with client.session.post(f"{client.url}/chat/completions", json=body) as r:
        events = [orjson.loads(line[6:]) async for line in r.content if line.startswith(b"data: {")]
    pieces = [c["delta"].get("content", "") for e in events for c in e["choices"]]
    assert "".join(pieces) == whole
    assert len(pieces) > 5
    assert events[-1]["usage"]["completion_tokens"] > 5


async def test_a_picture_it_has_seen_may_go_by_its_uuid_and_another_may_not(client: Client) -> None:
    body = asked("What is to be seen?", jpeg())
    body["messages"][0]["content"][0]["uuid"] = "a"
    first = await client.text(body)
    body["messages"][0]["content"][0]["image_url"] = None
    assert await client.text(body) == first
    body["messages"][0]["content"][0]["uuid"] = "b"
    status, answer = await client.post(body)
    assert status == 400
    assert "Cache miss" in answer["error"]["message"]
    assert "data is not provided" in answer["error"]["message"]


async def test_what_prompts_share_from_their_beginning_counts_as_cached(client: Client) -> None:
    frames = [jpeg(patch=RED, at=10 * i) for i in range(4)]
    await client.post(asked("What is to be seen?", *frames))
    _, second = await client.post(asked("And which team?", *frames))
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 4 * 28


async def test_a_clip_is_a_video_of_jpegs_and_costs_half_the_tokens(client: Client) -> None:
    pictures = [jpeg(), jpeg(patch=RED)]
    url = "data:video/jpeg;base64," + ",".join(pybase64.b64encode_as_string(j) for j in pictures)
    body = asked("What is to be seen?")
    body["messages"][0]["content"].insert(0, {"type": "video_url", "video_url": {"url": url}})
    _, clip = await client.post(body)
    _, images = await client.post(asked("What is to be seen?", *pictures))
    assert clip["choices"] == images["choices"]
    assert images["usage"]["prompt_tokens"] - clip["usage"]["prompt_tokens"] == 28


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "other"}, 404, "does not exist"),
        ({"messages": [{"role": "user", "content": shown(b"no jpeg")}]}, 400, "Failed to load image"),
        ({"messages": [{"role": "user", "content": shown(*[jpeg()] * 3)}]}, 400, "At most 2 image"),
        ({"messages": [{"role": "user", "content": "word " * 90_000}]}, 400, "maximum context length"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"type": "array", "uniqueItems": True}},
                }
            },
            400,
            "uniqueItems",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x"}}]}
                ]
            },
            500,
            "Cannot reach",
        ),
    ],
)
async def test_it_refuses_as_vllm_does(change: dict[str, Any], status: int, said: str) -> None:
    async with running(Settings(image_limit=2)) as (url, observer), aiohttp.ClientSession() as session:
        got, answer = await Client(url, observer, session).post(asked("?", jpeg()) | change)
    assert got == status
    assert said in answer["error"]["message"]


@pytest.mark.parametrize(
    "table",
    [
        '{"frame": 11, "incident": 0}\n{"frame": 21, "incident": 1}\n{"frame": 31, "incident": 1}',
        "frame,incident\n11,0\n21,1\n31,1",
        "| frame | incident |\n|---|---|\n| 11 | 0 |\n| 21 | 1 |\n| 31 | 1 |",
    ],
)
async def test_a_question_without_pictures_is_answered_from_the_table_in_it(client: Client, table: str) -> None:
    schema = {"type": "object", "properties": {"frame": {"type": "integer", "minimum": 1}}, "required": ["frame"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    answer = await client.text(asked(f"In which frame does it begin?\n{table}\n", response_format=form))
    assert orjson.loads(answer) == {"frame": 21}


def test_labels_are_found_in_lists_of_a_prompt() -> None:
    assert labels_in("labels: goal, red card\n- Set pieces: Corner, Free-kick\n") == [
        "goal",
        "red card",
        "Corner",
        "Free-kick",
    ]


def test_a_line_behind_a_label_and_the_form_of_an_event_are_no_labels() -> None:
    text = '- Goal — the ball is in, or was\n- Red card\nOne object each:\n[{"label": "LABEL", "team": "home"}]'
    assert labels_in(text) == ["Goal", "Red card"]


async def test_where_any_event_may_be_reported_it_reports_cuts_and_flashes(client: Client) -> None:
    text = 'Whatever happens, as [{"label": "LABEL"}]. If nothing does, output exactly: None'
    (event,) = orjson.loads(await client.text(asked(text, jpeg(), jpeg((250, 250, 250)))))[:1]
    assert event["label"] == "Scene cut"
    assert await client.text(asked(text, jpeg(), jpeg())) == "None"


async def test_a_time_is_since_the_first_picture_where_that_was_asked(client: Client) -> None:
    labelled = [{"type": "text", "text": f"{t}.000 s"} for t in (12, 14)]
    times = [*zip(labelled, shown(jpeg(), jpeg(patch=RED)), strict=True)]
    said = []
    for text in ("- Red card", "- Red card\nseconds since the first picture"):
        content = [*times[0], *times[1], {"type": "text", "text": text}]
        body = {"model": "observer", "messages": [{"role": "user", "content": content}]}
        said.append(orjson.loads(await client.text(body))[0]["time"])
    assert said == [14.0, 2.0]


async def test_a_number_of_a_list_stands_for_nothing_where_nothing_is_measured(client: Client) -> None:
    schema = {"type": "object", "properties": {"incident": {"enum": [1, 0, -1]}}, "required": ["incident"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    still = await client.text(asked("?", jpeg(), jpeg(), response_format=form))
    moved = await client.text(asked("?", jpeg(), jpeg(patch=RED), response_format=form))
    assert (orjson.loads(still), orjson.loads(moved)) == ({"incident": -1}, {"incident": 1})


@pytest.mark.parametrize(
    ("rows", "frame"),
    [
        ([(-1, "red 0%"), (-1, "red 0%"), (1, "red 1%"), (0, "red 9%")], 21),
        ([(-1, "red 0%"), (-1, "red 1%"), (-1, "red 9%"), (-1, "red 9%")], 21),
        ([(-1, "red 8%"), (-1, "red 8%, blue 1%"), (-1, "red 8%, blue 1%"), (-1, "red 8%")], 11),
        ([(-1, "nothing")] * 4, 1),
    ],
    ids=["an incident", "the largest change", "the first of several", "nothing"],
)
def test_the_line_that_tells_most_is_an_incident_else_where_most_changes(rows: list[Any], frame: int) -> None:
    table = [{"frame": 1 + 10 * i, "incident": sign, "scene": said} for i, (sign, said) in enumerate(rows)]
    assert telling(table, None)["frame"] == frame
    assert telling([], None) == {}


async def test_a_picture_that_is_called_by_its_frame_is_answered_by_it(client: Client) -> None:
    schema = {"type": "object", "properties": {"start_frame": {"type": "integer", "minimum": 1}}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    pictures = shown(jpeg(), jpeg(), jpeg(patch=RED), jpeg(patch=RED))
    named = [
        part
        for n, p in zip((91, 101, 111, 121), pictures, strict=True)
        for part in ({"type": "text", "text": f"Frame {n}:"}, p)
    ]
    content = [*named, {"type": "text", "text": "Where does it begin?"}]
    body = {"model": "observer", "messages": [{"role": "user", "content": content}], "response_format": form}
    assert orjson.loads(await client.text(body)) == {"start_frame": 111}


def test_tables_are_not_found_where_there_are_none() -> None:
    assert rows_in("Describe what happens, in one sentence, and say why.\nBe brief, be exact, be kind.") == []


# any schema ---------------------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 9),
        st.integers(0, 99),
    ),
    st.builds(
        lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)},
        st.integers(-9, 9),
        st.integers(-9, 9),
    ),
    st.builds(lambda a: {"type": "number", "minimum": a, "maximum": a + 1}, st.floats(-5, 5)),
    st.builds(
        lambda o: {"enum": o}, st.lists(st.sampled_from(["red", "none", "cut", 1, 0, None]), min_size=1, unique=True)
    ),
    st.builds(lambda c: {"const": c}, st.sampled_from(["a", 1, None])),
    st.just({"type": ["string", "null"], "maxLength": 20}),
)
names = st.sampled_from(["label", "confidence", "time", "frame", "count", "text", "incident", "severity"])
schemas: st.SearchStrategy[dict[str, Any]] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(
            lambda p: {"type": "object", "properties": p, "required": list(p), "additionalProperties": False},
            st.dictionaries(names, inner, max_size=4),
        ),
        st.builds(
            lambda i, least, more: {"type": "array", "items": i, "minItems": least, "maxItems": least + more},
            inner,
            st.integers(0, 2),
            st.integers(0, 3),
        ),
        st.builds(lambda o: {"anyOf": o}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda s: {"$ref": "#/$defs/x", "$defs": {"x": s}}, inner),
    ),
    max_leaves=12,
)

LOOKED = compare([measure(jpeg()), measure(jpeg(patch=RED)), measure(jpeg((250, 250, 250)))])


@given(schemas)
@settings(max_examples=300, deadline=None)
def test_an_answer_fits_its_schema(schema: dict[str, Any]) -> None:
    # References point from the root, so a definition deeper down is lifted there, as pydantic writes it.
    root = {"type": "object", "properties": {"it": schema}, "required": ["it"]}
    try:
        answer = by_schema(Facts("", LOOKED), root)
    except Impossible as e:
        assert "points nowhere" in str(e)  # noqa: PT017  # the only form in these schemas that has no answer
        return
    jsonschema.validate(answer, root)


@pytest.mark.parametrize(
    "schema", [{"type": "string", "pattern": "^zzz$"}, {"type": "moon"}, {"enum": []}, {"$ref": "#"}]
)
def test_a_schema_that_nothing_fits_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Impossible):
        by_schema(Facts("", LOOKED), schema)


async def test_faults_come_as_often_as_they_were_asked_for(client: Client) -> None:
    said = [(await client.post(asked("?", jpeg()), **{"x-observer": "503; times=2; id=a"}))[0] for _ in range(3)]
    assert said == [503, 503, 200]


async def test_many_ask_at_once(client: Client) -> None:
    texts = await asyncio.gather(*(client.text(asked("What?", jpeg(patch=YELLOW, at=i))) for i in range(40)))
    assert all("yellow" in t for t in texts)
