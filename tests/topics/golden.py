"""Small made messages of every topic, as they stand in a log. Those of older versions must be read for ever.

A message is a file with its value, and beside it `.headers.json` with its key and headers. They lie under the version
that wrote them: the folder of today's version is generated, the folders of older ones are never touched again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from streamproc import __version__
from streamproc.messages import (
    Caption,
    Context,
    Coverage,
    Description,
    Detection,
    Event,
    Frame,
    Grid,
    Incident,
    Life,
    Record,
    Seconds,
    Sighting,
    Source,
    Tokens,
    Verdict,
    Vote,
    Window,
    record_id,
)
from streamproc.topics import SEPARATOR
from streamproc.wire import MESSAGEPACK, Entry, encode, topic_of

TODAY = "v" + __version__.rpartition(".")[0]
TIME = "2026-03-01T20:45:00Z"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

JPEG = base64.b64decode(  # 8 × 8, grey
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBkeFxl"
    "Z2P/wAALCAAIAAgBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKB"
    "kaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWm"
    "p6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/ACv/2Q=="
)


@dataclass(frozen=True)
class Golden:
    case: str
    record: Record | Coverage
    sub: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        topic = topic_of(type(self.record))
        return f"{topic.name}.{self.case}.{'msgpack' if topic.content_type == MESSAGEPACK else 'json'}"

    def entry(self) -> Entry:
        return encode(self.record, partitions=16, time=TIME, sub=self.sub, traceparent=TRACE)


def beside(entry: Entry) -> str:
    """Key and headers, as text: both are UTF-8 in whatever we write."""
    said = {"key": entry.key.decode(), "headers": {name: value.decode() for name, value in entry.headers}}
    return json.dumps(said, indent=1, ensure_ascii=False) + "\n"


def read(topic: str, value: bytes, said: str) -> Entry:
    """The entry that `beside` and its value stand for."""
    parsed = json.loads(said)
    headers = tuple((name, text.encode()) for name, text in parsed["headers"].items())
    return Entry(topic, 0, parsed["key"].encode(), value, headers)


def sub_of(entry: Entry) -> tuple[str, ...]:
    return tuple(entry.key.decode().split(SEPARATOR)[1:])


# the messages -------------------------------------------------------------------------------------------------------


def _place(service: str, root: str, index: int) -> dict[str, Any]:
    stream = "league/match 1 – é"  # a folder, a space, and letters beyond ASCII
    return {
        "id": record_id(service, root, stream, 1, index),
        "service": service,
        "root": root,
        "stream": stream,
        "generation": 1,
        "revision": 2,
        "index": index,
        "start_ms": 2000 * index,
        "end_ms": 2000 * index + 4000,
        "outcome": "done",
    }


def _ends(record: type[Record], service: str, root: str = "decode") -> Iterator[Golden]:
    """What every sequence knows beside its results: failed, a gap, ended. In compacted topics each has its own key."""
    gap = {"outcome": "skipped", "reason": "missing", "until_index": 9, "end_ms": 20_000}
    for case, index, said in (
        ("failed", 4, {"outcome": "failed", "reason": "unreadable"}),
        ("gap", 5, gap),
        ("ended", 9, {"count": 9, "end_ms": 18_000}),
    ):
        key = ("ended" if case == "ended" else str(index),) if topic_of(record).compacted else ()
        yield Golden(case, record(**_place(service, root, index) | said), key)


def _answer(how: str = "whole") -> dict[str, Any]:
    return {
        "model": "qwen2.5-vl-7b",
        "prompt": "8c1f0e52",
        "raw": '{"events":[]}',
        "how": how,
        "context": record_id("context", "context", "league/match 1 – é", 1, 0),
        "tokens": Tokens(into=1371, cached=640, out=12),
        "seconds": Seconds(queued=0.25, served=1.5),
        "attempts": 1,
    }


def everything() -> Iterator[Golden]:
    """Every topic, in each of its shapes."""
    grid = Grid(root="decode", origin="0", step="2", first=0)
    source = Source(
        **_place("cli", "cli", 2),
        uri="file:///videos/match1.mp4",
        live=False,
        state="active",
        from_index=0,
        grid=grid,
        task={"name": "any", "labels": ["goal"]},
        services=("caption", "dedup", "detect.qwen2.5-vl-7b"),
        readers={"windows": ("caption", "detect.qwen2.5-vl-7b"), "detections": ("dedup",)},
        lag="block",
    )
    yield Golden("done", source, sub=("1.2",))
    feed = {
        "uri": "rtsp://camera/1",
        "live": True,
        "state": "removed",
        "lag": "skip-older-than=10",
        "join_wait_s": 30.0,
    }
    yield Golden("removed", Source(**{f: getattr(source, f) for f in source.__struct_fields__} | feed), sub=("1.2",))

    frames = tuple(Frame(t_ms=6000 + 1000 * i, frame=151 + 25 * i, jpeg=JPEG) for i in range(4))
    yield Golden(
        "done", Window(**_place("decode", "decode", 3), frames=frames, clips=((0, 1), (2, 3)), width=8, height=8)
    )
    live = tuple(Frame(t_ms=6000, jpeg=JPEG) for _ in range(1))
    yield Golden(
        "feed", Window(**_place("decode", "decode", 3), utc=TIME, frames=live, clips=((0, 0),), width=8, height=8)
    )
    yield from _ends(Window, "decode")

    teams = {"home": "red", "away": "white"}
    yield Golden(
        "done",
        Context(**_place("context", "context", 0), **_answer(), fields=teams, from_=0, until_=900),
        sub=("0",),
    )
    yield from _ends(Context, "context", "context")

    yield Golden(
        "done", Caption(**_place("caption", "decode", 3), **_answer(), text="A corner.", fields={"ball": True})
    )
    yield from _ends(Caption, "caption")

    seen = Sighting(label="goal", team="home", confidence=0.75, details="from the left", time_ms=7250)
    by = "detect.qwen2.5-vl-7b"
    yield Golden(
        "done", Detection(**_place(by, "decode", 3), **_answer("fenced"), events=(seen, Sighting(label="foul")))
    )
    yield Golden("null", Detection(**_place(by, "decode", 3), **_answer(), events=()))
    yield from _ends(Detection, by)

    yield Golden(
        "done",
        Incident(
            **_place("locate", "locate", 0), **_answer(), frame=181, time_ms=7250, votes=2, samples=(181, None, 181)
        ),
    )
    yield from _ends(Incident, "locate", "locate")

    life = Life(
        id="league/match 1 – é/e7",
        revision=2,
        state="close",
        label="goal",
        team="home",
        start_ms=6000,
        end_ms=12_000,
        time_ms=7250,
        confidence=0.75,
        votes=(Vote(model="qwen2.5-vl-7b", index=3, confidence=0.75), Vote(model="other", index=4)),
        details="from the left",
    )
    yield Golden("done", Event(**_place("dedup", "dedup", 7), event=life))
    yield from _ends(Event, "dedup", "dedup")

    told = {"how": "a shot from the left", "players": 2}
    yield Golden(
        "done",
        Description(
            **_place("describe.m.short", "dedup", 7),
            **_answer(),
            fields=told,
            samples=(told, told),
            agreement=1.0,
            preset="short",
        ),
    )
    yield from _ends(Description, "describe.m.short", "dedup")

    yield Golden(
        "done",
        Verdict(
            **_place("ensemble", "dedup", 7),
            **_answer(),
            fields=told,
            label="goal",
            time_ms=7250,
            frame=181,
            confidence=0.875,
            found_by=("qwen2.5-vl-7b", "other"),
            rule="vote",
            inputs=(record_id("dedup", "dedup", "league/match 1 – é", 1, 7),),
        ),
    )
    yield from _ends(Verdict, "ensemble", "dedup")

    yield Golden(
        "done",
        Coverage(
            id=f"{by}/decode/league/match 1 – é/1/0",
            stream="league/match 1 – é",
            service=by,
            root="decode",
            generation=1,
            hour=0,
            ended=True,
            count=9,
            done=((0, 8000),),
            failed=((8000, 10_000),),
            skipped=((10_000, 18_000),),
            missing=(),
            taken=((0, 9),),
        ),
        sub=(by, "decode", "1", "0"),
    )
