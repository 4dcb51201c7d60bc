"""Addresses: what FFmpeg is told, what people may read, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import Misconfigured
from streamproc.video.address import literal, parse, redact


def test_variables_are_filled_in_and_never_shown() -> None:
    found = parse("rtsp://${USER_NAME}:${CAMERA}@10.0.0.7/stream", secrets={"USER_NAME": "eva", "CAMERA": "hunter2"})
    assert found.target == "rtsp://eva:hunter2@10.0.0.7/stream"
    assert found.shown == "rtsp://${USER_NAME}:${CAMERA}@10.0.0.7/stream"


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(Misconfigured, match="CAMERA"):
        parse("rtsp://eva:${CAMERA}@10.0.0.7/", secrets={})


@given(st.text(st.characters(codec="ascii", exclude_characters=" \t\r\n/&#${}", min_codepoint=33), min_size=4))
def test_a_literal_password_is_never_shown(password: str) -> None:
    shown = parse(f"rtsp://eva:{password}@camera.example/7?token={password}&x=1", secrets={}).shown
    assert shown == "rtsp://eva:***@camera.example/7?token=***&x=1"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://admin:Admin@123@10.0.0.1/1", "rtsp://admin:***@10.0.0.1/1"),
        ("rtsp://eva@home:hunter2@10.0.0.1/1", "rtsp://eva@home:***@10.0.0.1/1"),
        ("rtsp://${NAME}:hunter2@10.0.0.1/1", "rtsp://${NAME}:***@10.0.0.1/1"),
        ("rtsp://eva:hunter2${NAME}@10.0.0.1/1", "rtsp://eva:***@10.0.0.1/1"),
        ("http://cam/1?user=admin&pwd=hunter2", "http://cam/1?user=admin&pwd=***"),
        ("http://cam/1?Auth=hunter2&x=1", "http://cam/1?Auth=***&x=1"),
        ("http://cam/1?credential=hunter2", "http://cam/1?credential=***"),
    ],
)
def test_a_password_is_found_however_it_is_written(uri: str, shown: str) -> None:
    assert redact(uri) == shown
    assert literal(uri)


def test_a_path_is_a_path_whatever_is_in_it() -> None:
    for path in ("a match.mp4", "./${HOME}.mp4", "c:odd.mp4", "100%.mkv", "-i.mp4"):
        found = parse(path)
        assert (found.target, found.is_file) == (path, True)


@pytest.mark.parametrize("uri", ["ftp://host/x", "concat://a", "webcam:", "webcam:front", "gopher://eva:secret@host/"])
def test_what_no_source_can_be_is_refused(uri: str) -> None:
    with pytest.raises(Misconfigured) as told:
        parse(uri, secrets={})
    assert "secret" not in str(told.value)


def test_a_webcam_is_a_device() -> None:
    found = parse("webcam:2")
    assert (found.target, found.format) == ("/dev/video2", "v4l2")


def test_addresses_without_secrets_stay_as_they_are() -> None:
    for uri in (
        "https://host/a.mp4?start=3",
        "rtsp://camera:554/a@b",
        "rtsp://eva@camera:554/1",
        "udp://239.0.0.1:1234",
    ):
        assert redact(uri) == uri
