"""What is generated is up to date, says what the code does, and every golden message is read, whoever wrote it."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker

from streamproc.topics import Topic, all_topics, topic
from streamproc.wire import MESSAGEPACK, decode, encode
from tests.topics import golden
from tests.topics.__main__ import FOLDER, stale
from tests.topics.asyncapi import DEAD, HEADERS, MAY

TOPICS = list(all_topics().values())
GOLDEN = sorted(
    p for p in (FOLDER / "golden").rglob("*") if p.suffix in (".json", ".msgpack") and ".headers." not in p.name
)
TODAYS = [p for p in GOLDEN if p.parent.name == golden.TODAY]


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def topic_of(path: Path) -> Topic:
    return topic(path.name.partition(".")[0])


def message(path: Path) -> Any:
    """The record of a golden file."""
    said = path.with_name(path.name + ".headers.json").read_text()
    return decode(topic_of(path), golden.read(topic_of(path).name, path.read_bytes(), said))


def schema(of: Topic) -> Any:
    return json.loads((FOLDER / "schemas" / f"{of.name}.json").read_text())


def test_what_is_generated_is_up_to_date() -> None:
    assert stale() == [], "run: python -m tests.topics --write"


@pytest.mark.parametrize("path", GOLDEN, ids=named)
def test_every_golden_message_is_read_whichever_version_wrote_it(path: Path) -> None:
    assert message(path).id


@pytest.mark.parametrize("path", TODAYS, ids=named)
def test_todays_golden_messages_are_written_again_byte_for_byte(path: Path) -> None:
    said = path.with_name(path.name + ".headers.json").read_text()
    stored = golden.read(topic_of(path).name, path.read_bytes(), said)
    again = encode(message(path), partitions=16, time=golden.TIME, sub=golden.sub_of(stored), traceparent=golden.TRACE)
    assert (again.value, again.key, again.headers) == (stored.value, stored.key, stored.headers)


@pytest.mark.parametrize("path", TODAYS, ids=named)
def test_golden_messages_are_what_their_schema_says(path: Path) -> None:
    content = path.read_bytes()
    if topic_of(path).content_type == MESSAGEPACK:
        content = msgspec.json.encode(msgspec.msgpack.decode(content))  # pictures become base64, as the schema says
    Draft202012Validator(schema(topic_of(path)), format_checker=FormatChecker()).validate(json.loads(content))


def test_every_topic_has_a_golden_message_of_every_outcome_it_can_have() -> None:
    for each in TOPICS:
        cases = {p.name.split(".")[1] for p in TODAYS if topic_of(p) is each}
        wanted = {"done"} if each.name in ("sources", "coverage") else {"done", "failed", "gap", "ended"}
        assert cases >= wanted, each.name


def test_golden_messages_together_use_every_field_there_is() -> None:
    for each in TOPICS:
        assert each.record
        used = set(chain.from_iterable(msgspec.to_builtins(message(p)) for p in TODAYS if topic_of(p) is each))
        fields = {f.encode_name for f in msgspec.structs.fields(each.record)}
        if each.name != "windows":
            fields -= {"utc"}
        if each.name == "sources":
            fields -= {"until_index", "reason", "count", "footage"}
        assert used >= fields, f"{each.name}: {sorted(fields - used)}"


@pytest.mark.parametrize("each", TOPICS, ids=lambda t: t.name)
def test_schemas_are_valid_and_say_what_the_topic_is_about(each: Topic) -> None:
    found = schema(each)
    Draft202012Validator.check_schema(found)
    assert each.about in found["description"]


def test_descriptions_come_from_the_code() -> None:
    fields = schema(topic("windows"))["properties"]
    assert fields["until_index"]["description"].startswith("In a gap: exclusive end")
    assert "overlapping windows share clips whole" in fields["clips"]["description"]


# asyncapi.yaml ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api() -> Any:
    return yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())


def test_every_reference_in_asyncapi_leads_somewhere(api: Any) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [r for value in node.values() for r in references(value)]
        return [r for value in node for r in references(value)] if isinstance(node, list) else []

    found = references(api)
    assert found
    for reference in found:
        if reference.startswith("./"):
            assert (FOLDER / reference).is_file(), reference
            continue
        node = api
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_every_topic_is_a_channel_with_its_dead_letters_beside_it(api: Any) -> None:
    assert set(api["channels"]) == {name for t in TOPICS for name in (t.name, t.dlq.name)}
    for each in chain.from_iterable((t, t.dlq) for t in TOPICS):
        kafka = api["channels"][each.name]["bindings"]["kafka"]
        assert kafka["topicConfiguration"]["cleanup.policy"] == ["compact" if each.compacted else "delete"]
        assert kafka["topicConfiguration"]["max.message.bytes"] == each.max_bytes
        assert f"send.{each.name}" in api["operations"]


def test_headers_in_asyncapi_are_those_on_the_wire(api: Any) -> None:
    entry = next(golden.everything()).entry()
    assert {name for name, _ in entry.headers} == {*HEADERS, "traceparent"}
    assert "traceparent" in MAY
    contract = {"error", "error-class", "attempts", "source-topic", "source-partition", "source-offset", "service"}
    assert set(DEAD) == contract
    assert set(api["components"]["messageTraits"]["deadLetter"]["headers"]["required"]) == contract | set(HEADERS)
