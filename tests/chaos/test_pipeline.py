"""The short form of the chaos over the whole pipeline; and that its checks catch what they are for."""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamproc.messages import Life
from tests import brokers
from tests.chaos import pipeline
from tests.chaos.endpoint import Call
from tests.chaos.pipeline_check import check
from tests.chaos.pipeline_evidence import Evidence, Said
from tests.chaos.pipeline_weather import DESCRIBE, A


def asked(**said: Any) -> argparse.Namespace:
    usual = {"bus": "embedded", "brokers": 1, "latency": 0.02, "bounded": 200.0, "together": True, "keep": False}
    return argparse.Namespace(**(usual | said))


def ride(folder: Path, seed: int, **said: Any) -> Evidence:
    """A run that must hold."""
    wants = asked(**said)
    ridden, evidence, whole = asyncio.run(pipeline.storm(wants, seed, folder))
    found = check(evidence)
    told = pipeline.told(wants, ridden, evidence, found, whole=whole)
    assert told["ok"], (told, found.examples, ridden.services.failures, ridden.late)
    assert told["kills"] == said["kills"]
    assert told["repeated_landed"] == 0
    return evidence


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short enough for what a bus keeps beside its file."""
    path = Path(tempfile.mkdtemp(prefix="streamproc-chaos-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def evidence(folder: Path) -> Evidence:
    return ride(folder, 11, windows=300, length=100, kills=2)


@pytest.mark.timeout(240)
def test_services_that_are_killed_lose_and_double_nothing_from_decode_to_verdict(evidence: Evidence) -> None:
    assert len(evidence.windows_of) == 4
    assert pipeline.NO_FILE in evidence.windows_of
    assert all(evidence.of("ensemble", "ensemble", f"s{i}") for i in range(3))


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_on_kafka_whose_broker_restarts_too(tmp_path: Path) -> None:
    if (why := brokers.missing()) and not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    ride(tmp_path, 12, bus="kafka", windows=200, length=100, kills=1)


# each check catches what it is for ----------------------------------------------------------------------------------

Spoil = Callable[[Evidence], None]


def first(evidence: Evidence, service: str, root: str, like: Callable[[Any], bool] = lambda _: True) -> tuple[Any, int]:
    """Outcomes of a stream, and the place of the first that is like that."""
    stream = next(s for s in sorted(evidence.windows_of) if evidence.windows_of[s] == 100)
    said = evidence.said[service, root, stream]
    return said, next(i for i, one in enumerate(said) if not one.record.ended and like(one.record))


def changed(said: list[Said], at: int, **fields: Any) -> None:
    said[at] = Said(msgspec.structs.replace(said[at].record, **fields), said[at].pictures, said[at].landed_at)


def lose_a_caption(evidence: Evidence) -> None:
    said, at = first(evidence, "caption.c", "decode")
    del said[at]


def lose_an_end(evidence: Evidence) -> None:
    said, _ = first(evidence, "ensemble", "ensemble")
    del said[next(i for i, one in enumerate(said) if one.record.ended)]


def double_a_detection(evidence: Evidence) -> None:
    said, at = first(evidence, A, "decode")
    said.append(said[at])


def show_another_picture(evidence: Evidence) -> None:
    said, at = first(evidence, "decode", "decode")
    said[at] = Said(said[at].record, (said[at].pictures[0] + 1, *said[at].pictures[1:]), said[at].landed_at)


def see_what_is_not_there(evidence: Evidence) -> None:
    said, at = first(evidence, A, "decode", lambda r: r.events)
    changed(said, at, events=())


def forget_a_vote(evidence: Evidence) -> None:
    said, at = first(evidence, "dedup", "dedup", lambda r: r.event and r.event.state == "close")
    life: Life = said[at].record.event
    changed(said, at, event=msgspec.structs.replace(life, votes=life.votes[1:]))


def describe_something_else(evidence: Evidence) -> None:
    said, at = first(evidence, DESCRIBE, "dedup", lambda r: r.outcome == "done")
    changed(said, at, fields={"text": "of something else"})


def judge_without_the_description(evidence: Evidence) -> None:
    said, at = first(evidence, "ensemble", "ensemble", lambda r: len(r.inputs or ()) > 1)
    changed(said, at, inputs=said[at].record.inputs[:1])


def cover_what_is_not_done(evidence: Evidence) -> None:
    key = next(k for k in sorted(evidence.coverage) if k[0] == "caption.c" and evidence.windows_of[k[2]] == 100)
    evidence.coverage[key] = msgspec.structs.replace(evidence.coverage[key], done=((0, 10_000),), failed=())


def bury_somebody_twice(evidence: Evidence) -> None:
    evidence.dead.append(evidence.dead[0])


def bury_nobody(evidence: Evidence) -> None:
    evidence.dead = [letter for letter in evidence.dead if letter[0] != A]


def ask_again_what_has_landed(evidence: Evidence) -> None:
    calls = next(calls for key, calls in sorted(evidence.calls.items()) if key[0] == "detect.a")
    calls.append(Call(0, calls[0].began + 1000, calls[0].began + 1001))


def ask_twice_at_once(evidence: Evidence) -> None:
    evidence.harms = ()
    calls = next(calls for key, calls in sorted(evidence.calls.items()) if key[0] == "detect.a")
    calls.insert(1, calls[0])


@pytest.mark.parametrize(
    ("spoil", "caught"),
    [
        (lose_a_caption, "lost"),
        (lose_an_end, "lost"),
        (double_a_detection, "doubled"),
        (show_another_picture, "inexact"),
        (see_what_is_not_there, "inexact"),
        (forget_a_vote, "inexact"),
        (describe_something_else, "inexact"),
        (judge_without_the_description, "unaccounted"),
        (cover_what_is_not_done, "uncovered"),
        (bury_somebody_twice, "dead"),
        (bury_nobody, "dead"),
        (ask_again_what_has_landed, "repeated_landed"),
        (ask_twice_at_once, "needless"),
    ],
)
@pytest.mark.timeout(240)
def test_what_is_spoilt_is_found(evidence: Evidence, spoil: Spoil, caught: str) -> None:
    spoilt = copy.deepcopy(evidence)
    spoil(spoilt)
    found = check(spoilt)
    assert getattr(found, caught) > 0
    assert not found.ok
