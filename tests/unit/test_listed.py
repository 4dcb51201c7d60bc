"""Streams as people write them down: TOML or JSON, and every mistake named with its place."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from streamproc.cli.listed import Listed, read
from streamproc.errors import Misconfigured

TOML = """
[[streams]]
stream = "door"
uri = "rtsp://10.0.0.7/1"
task = "any"
set = { labels = "parcel, cat", "detect.samples" = 3 }
model = ["detect=m"]
lag = "sample=3"
footage = "kept?hours=2"
state = "paused"

[[streams]]
stream = "yard"
set = ["labels=parcel"]
"""
DOOR = Listed(
    "door",
    uri="rtsp://10.0.0.7/1",
    task="any",
    options=("labels=parcel, cat", "detect.samples=3"),
    models=("detect=m",),
    lag="sample=3",
    footage="kept?hours=2",
    state="paused",
)
YARD = Listed("yard", options=("labels=parcel",))


def test_toml_and_json_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "streams.toml").write_text(TOML)
    assert read(tmp_path / "streams.toml") == [DOOR, YARD]
    rows = [
        {"stream": "door", "uri": DOOR.uri, "task": "any", "set": {"labels": "parcel, cat", "detect.samples": 3},
         "model": ["detect=m"], "lag": "sample=3", "footage": "kept?hours=2", "state": "paused"},
        {"stream": "yard", "set": ["labels=parcel"]},
    ]  # fmt: skip
    for said in (rows, {"streams": rows}):
        (tmp_path / "streams.json").write_text(json.dumps(said))
        assert read(tmp_path / "streams.json") == [DOOR, YARD]
    monkeypatch.setattr(sys, "stdin", io.StringIO(TOML))
    assert read(Path("-")) == [DOOR, YARD]
    (tmp_path / "none.json").write_text("[]")
    assert read(tmp_path / "none.json") == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("[[streams]]\n", "stream 1: a stream is a table"),
        ("[[streams]]\nstream = 1", "stream 1: a stream is a table"),
        ('[[streams]]\nstream = "a"\n[[streams]]\nstream = "a"', "names stream 'a' twice"),
        ('[[streams]]\nstream = "a"\nurl = "x"', "no option 'url'; did you mean 'uri'"),
        ('[[streams]]\nstream = "a"\nuri = 1', "uri is text"),
        ('[[streams]]\nstream = "a"\nstate = "removed"', "leave a stream out to remove it"),
        ('[[streams]]\nstream = "a"\nset = "x=1"', "set is a list of KEY=VALUE, or a table"),
        ('[[streams]]\nstream = "a"\nmodel = [1]', "model is a list of KEY=VALUE"),
        ('[[stream]]\nstream = "a"', "a list of streams"),
        ('more = 1\n[[streams]]\nstream = "a"', "and nothing else"),
        ("{", "neither TOML nor JSON"),
        ('stream: "a"', "neither TOML nor JSON"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, said: str, why: str) -> None:
    (tmp_path / "streams.toml").write_text(said)
    with pytest.raises(Misconfigured) as told:
        read(tmp_path / "streams.toml")
    assert why in str(told.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read"):
        read(tmp_path / "nowhere.toml")


async def test_a_new_stream_needs_an_address() -> None:
    with pytest.raises(Misconfigured, match="it needs a uri"):
        await YARD.wanted()
