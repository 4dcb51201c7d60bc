"""Prompts become bytes in one order for all models, and what does not fit is left out evenly and said so."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from streamproc.models.body import Manner, Seen, encoded
from streamproc.models.failures import TooMuch
from streamproc.models.fit import Fit, fitted, halved
from streamproc.models.prompt import Picture, Prompt, thinned

PICTURES = tuple(Picture(bytes([i]) * 3, 1000 * i) for i in range(4))
PROMPT = Prompt(
    "What happens?",
    system="You watch soccer.",
    context="Reds against Blues.",
    pictures=PICTURES,
    clips=((0, 1), (2, 3)),
)


def parts(prompt: Prompt, **manner: Any) -> list[Any]:
    body = orjson.loads(encoded(prompt, Manner(**({"model": "m"} | manner)), {}).data)
    return list(body["messages"][-1]["content"])


def test_the_order_is_system_context_pictures_question() -> None:
    """A golden test: servers keep what prompts share from their beginning, so a change here costs every user's cache."""
    body = encoded(PROMPT, Manner(model="m", label="Time {time_s:.1f}s:"), {"temperature": 0, "max_tokens": 9})
    image = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(p.jpeg).decode()}"}}
        for p in PICTURES
    ]
    text = [{"type": "text", "text": f"Time {i}.0s:"} for i in range(4)]
    assert orjson.loads(body.data) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You watch soccer."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Reds against Blues."},
                    *[part for pair in zip(text, image, strict=True) for part in pair],
                    {"type": "text", "text": "What happens?"},
                ],
            },
        ],
        "temperature": 0,
        "max_tokens": 9,
    }


def test_clips_and_video_are_jpegs_between_commas() -> None:
    def urls(**manner: Any) -> list[str]:
        return [p["video_url"]["url"] for p in parts(PROMPT, **manner) if p["type"] == "video_url"]

    assert urls(media="clips") == ["data:video/jpeg;base64,AAAA,AQEB", "data:video/jpeg;base64,AgIC,AwMD"]
    assert urls(media="video") == ["data:video/jpeg;base64,AAAA,AQEB,AgIC,AwMD"]


def test_what_stands_before_a_picture_stays_before_it() -> None:
    prompt = Prompt("?", pictures=(Picture(b"a", 0), Picture(b"b", 1000, before="Q: and now?")))
    assert [p.get("text", "image") for p in parts(prompt)] == ["image", "Q: and now?", "image", "?"]


def test_text_alone_goes_as_text() -> None:
    body = orjson.loads(encoded(Prompt("b", context="a"), Manner(model="m", system_prefix="Only JSON."), {}).data)
    assert body["messages"] == [
        {"role": "system", "content": "Only JSON."},
        {"role": "user", "content": "a\n\nb"},
    ]


@pytest.mark.parametrize(
    ("mode", "form", "told"),
    [("schema", "json_schema", False), ("object", "json_object", True), ("text", None, True)],
)
def test_a_schema_is_enforced_asked_for_or_told(mode: Any, form: str | None, *, told: bool) -> None:
    prompt = Prompt("?", schema={"type": "object"})
    body = orjson.loads(encoded(prompt, Manner(model="m", json_mode=mode), {}).data)
    assert body.get("response_format", {}).get("type") == form
    assert ('{"type":"object"}' in body["messages"][0]["content"]) is told


def test_a_uuid_comes_from_the_bytes_and_the_processor() -> None:
    def uuids(prompt: Prompt, processor: str = "") -> tuple[str, ...]:
        return encoded(prompt, Manner(model="m", uuids=True, processor=processor), {}).uuids

    other = Prompt("?", pictures=(PICTURES[0], Picture(b"other", 0)))
    assert len(set(uuids(PROMPT))) == 4
    assert uuids(other)[0] == uuids(PROMPT)[0]
    assert uuids(other)[1] not in uuids(PROMPT)
    assert set(uuids(PROMPT, "max_pixels=1")).isdisjoint(uuids(PROMPT))


def test_what_was_seen_goes_without_data() -> None:
    manner, seen = Manner(model="m", uuids=True), Seen()
    first = encoded(PROMPT, manner, {}, seen=seen)
    seen.add(first.uuids[:2])
    body = encoded(PROMPT, manner, {}, seen=seen)
    content = orjson.loads(body.data)["messages"][-1]["content"]
    assert [p["image_url"] is None for p in content if p["type"] == "image_url"] == [True, True, False, False]
    assert body.spared == 2


def test_the_digest_of_a_prompt_leaves_its_pictures_out() -> None:
    assert PROMPT.digest == Prompt("What happens?", system="You watch soccer.", context="Reds against Blues.").digest
    assert PROMPT.digest != Prompt("What else?", system="You watch soccer.", context="Reds against Blues.").digest


# what fits -----------------------------------------------------------------------------------------------------------


def many(n: int) -> Prompt:
    jpeg = bytes(simplejpeg.encode_jpeg(np.zeros((28, 56, 3), np.uint8)))
    return Prompt("?", pictures=tuple(Picture(jpeg, 1000 * i) for i in range(n)))


@given(st.integers(0, 60), st.integers(0, 60))
def test_frames_are_left_out_evenly_and_the_ends_stay(n: int, keep: int) -> None:
    prompt = Prompt("?", pictures=tuple(Picture(b"", i, before=f"turn {i}") for i in range(n)))
    kept = [p.t_ms for p in thinned(prompt, keep).pictures]
    assert len(kept) == min(n, keep)
    assert kept == sorted(set(kept))
    if 1 < keep < n:
        gaps = [b - a for a, b in pairwise(kept)]
        assert (kept[0], kept[-1]) == (0, n - 1)
        assert max(gaps) - min(gaps) <= 1


@given(st.integers(1, 20), st.integers(0, 20))
def test_what_was_said_between_frames_is_never_lost(n: int, keep: int) -> None:
    prompt = Prompt("?", pictures=tuple(Picture(b"", i, before=f"turn {i}") for i in range(n)))
    left = thinned(prompt, keep)
    said = "\n".join([*(p.before for p in left.pictures if p.before), left.question])
    assert said.split("\n") == [*(f"turn {i}" for i in range(n)), "?"]


def test_tokens_are_counted_ahead_and_frames_dropped_until_they_fit() -> None:
    fit = Fit(context_tokens=200, image_tokens=lambda width, height: width * height // 784)
    prompt, notes = fitted(many(100), fit, answer_tokens=84)
    assert len(prompt.pictures) == 50
    assert notes == ("50 of 100 frames: the context has room for 100 tokens of pictures",)


def test_text_that_alone_is_too_long_is_too_much() -> None:
    with pytest.raises(TooMuch, match="text alone"):
        fitted(Prompt("word " * 1000), Fit(context_tokens=512), answer_tokens=100)


def test_what_fits_is_left_as_it_is() -> None:
    assert fitted(PROMPT, Fit(images=4), answer_tokens=100) == (PROMPT, ())


def test_a_text_model_gets_no_pictures_and_it_is_said() -> None:
    prompt, notes = fitted(PROMPT, Fit(images=0), answer_tokens=100)
    assert prompt.pictures == ()
    assert notes == ("0 of 4 frames: the model takes no more images",)


def test_halved_pictures_have_half_the_width_and_height() -> None:
    (picture,) = halved(many(1)).pictures
    assert simplejpeg.decode_jpeg_header(picture.jpeg)[:2] == (14, 28)
