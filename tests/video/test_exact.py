"""Frames chosen from files of every kind are those of a full decode, in timestamp and pixels, by ffmpeg's own word."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streamproc.video import address, sampling
from streamproc.video.choice import Every, Rate, Rule, choose
from streamproc.video.container import opened
from streamproc.video.limits import Limits
from streamproc.video.picture import digest
from streamproc.video.sampling import Span
from tests.video.files import KINDS, SLOW, X265, X265P, Kind
from tests.video.judge import judge

RULES = (Every(1), Every(10), Rate(Fraction(1)), Rate(Fraction(7)))
DECODED_WHOLE = {"h264-raw", "h264-avi", "mpeg4-avi", "mpeg4-packed", "ffv1", "gif"}
"""Kinds whose packets do not tell what is shown."""


def ours(path: Path, rule: Rule, span: Span = sampling.ALL) -> list[tuple[int, int, str]]:
    with opened(address.parse(path), Limits()) as video:
        return [(c.number, c.pts, digest(frame)) for c, frame in sampling.samples(video, rule, span)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_frames_are_those_of_a_full_decode(kind: Kind, folder: Path) -> None:
    path = kind.make(folder)
    shown = judge(path)
    for rule in RULES:
        assert ours(path, rule) == shown.chosen(rule), rule


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_only_files_whose_packets_tell_too_little_are_decoded_whole(kind: Kind, folder: Path) -> None:
    with opened(address.parse(kind.make(folder)), Limits()) as video:
        assert sampling.index(video).regular == (kind.name not in DECODED_WHOLE)


@pytest.mark.parametrize("name", ["h264-open", "hevc-open", "hevc-cut", "h264-editlist", "mpeg4-avi", "vp9-alt"])
def test_any_span_gives_its_part_of_the_whole(name: str, folder: Path) -> None:
    path = next(k for k in KINDS if k.name == name).make(folder)
    shown, rule = judge(path), Rate(Fraction(5))
    cuts = [Fraction(n, 10) for n in (0, 7, 16, 25, 33, 60)]
    parts = [ours(path, rule, Span(a, b)) for a, b in pairwise(cuts)]
    assert [frame for part in parts for frame in part] == shown.chosen(rule)


X264_LIKE = st.builds(
    lambda gop, bf, ref, pyramid, open_gop, weight, slices, ending: Kind(
        f"x264-{gop}-{bf}-{ref}-{pyramid}-{open_gop}-{weight}-{slices}",
        ending,
        f"{SLOW} -g {gop} -bf {bf} -x264-params "
        f"ref={ref}:b-pyramid={pyramid}:open-gop={open_gop}:weightp={weight}:slices={slices}:b-adapt=0",
        size="64x48",
        seconds=2.4,
    ),
    st.integers(1, 40),
    st.integers(0, 7),
    st.integers(1, 16),
    st.sampled_from(["none", "strict", "normal"]),
    st.integers(0, 1),
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from(["mp4", "mkv", "ts"]),
)
X265_LIKE = st.builds(
    lambda gop, bf, ref, open_gop, pyramid, layers, ending: Kind(
        f"x265-{gop}-{bf}-{ref}-{open_gop}-{pyramid}-{layers}",
        ending,
        f"{X265} -x265-params {X265P}:keyint={gop}:min-keyint={gop}:bframes={bf}:ref={ref}:open-gop={open_gop}"
        f":b-pyramid={pyramid}:temporal-layers={layers}:b-adapt=0:rc-lookahead=15",
        size="64x64",
        seconds=2.4,
    ),
    st.integers(2, 40),
    st.integers(0, 6),
    st.integers(1, 6),
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(0, 1),
    st.sampled_from(["mp4", "mkv", "ts"]),
)


@settings(max_examples=20)
@given(kind=X264_LIKE | X265_LIKE, rule=st.builds(Every, st.integers(1, 30)))
def test_however_a_file_was_encoded_frames_are_those_of_a_full_decode(kind: Kind, rule: Rule, folder: Path) -> None:
    path = kind.make(folder)
    assume(path.stat().st_size)  # some of what can be asked for x265 does not do
    assert ours(path, rule) == judge(path).chosen(rule)


# the rule itself, against the words of the contract ------------------------------------------------------------------


@given(
    steps=st.lists(st.integers(1, 90), min_size=1, max_size=60),
    first=st.integers(-(10**6), 10**6),
    rate=st.fractions(Fraction(1, 10), Fraction(60), max_denominator=1001),
)
def test_a_sample_is_the_first_frame_at_or_after_its_time_and_the_latest_sample_keeps_it(
    steps: list[int], first: int, rate: Fraction
) -> None:
    time_base = Fraction(1, 90)
    pts = [first + sum(steps[:i]) for i in range(len(steps) + 1)]
    wanted: dict[int, int] = {}
    k = 0
    while True:
        at = next((p for p in pts if (p - first) * time_base >= k / rate), None)
        if at is None:
            break
        wanted[at] = k
        k += 1
    assert {c.pts: c.k for c in choose(pts, time_base, Rate(rate))} == wanted


def test_time_that_jumps_back_is_not_sampled_twice() -> None:
    pts = [0, 10, 20, 5, 15, 25, 35]
    assert [c.number for c in choose(pts, Fraction(1, 10), Rate(Fraction(1)))] == [1, 2, 3, 7]
