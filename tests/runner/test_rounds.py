"""Several calls for one record: what each has brought lands, and whoever comes after begins with the next."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from msgspec import Struct

from streamproc.errors import NotYet, Rejected, Retryable
from streamproc.messages import Caption, Window
from streamproc.runner import Backoff
from streamproc.stage import Look, Rounds
from tests.runner.rig import Rig, told


class Heard(Struct, frozen=True):
    words: tuple[str, ...] = ()


class Story(Rounds):
    """Three rounds; `asked` has every call, and what `trouble` says of one happens in it."""

    reads, writes, tables = ("windows",), ("captions",), ("contexts",)
    SoFar: ClassVar[Any] = Heard

    def __init__(self, asked: list[tuple[int, int]]) -> None:
        self.asked = asked
        self.trouble: dict[int, Exception | asyncio.Event] = {}

    async def round(self, record: Window, so_far: Heard | None, look: Look) -> Caption | Heard:
        words = (so_far or Heard()).words
        self.asked.append((record.index, len(words)))
        match self.trouble.pop(len(words), None):
            case Exception() as error:
                raise error
            case asyncio.Event() as never:
                await never.wait()
        await asyncio.sleep(0.1)
        words = (*words, f"w{len(words)}")
        return Heard(words) if len(words) < 3 else Caption.of(record, text=" ".join(words))


def rig_with_a_window() -> Rig:
    rig = Rig.of()
    rig.windows(rig.source("m", "caption.a"), 0)
    return rig


def rounds(asked: list[tuple[int, int]]) -> list[int]:
    return [number for _, number in asked]


@told
async def test_who_is_killed_in_a_round_repeats_that_round_and_none_before_it() -> None:
    rig, asked = rig_with_a_window(), list[tuple[int, int]]()
    hangs = Story(asked)
    hangs.trouble = {2: asyncio.Event()}
    async with rig.killed("caption.a", hangs):
        await rig.until(lambda: rounds(asked) == [0, 1, 2])
        await asyncio.sleep(1)  # virtual: what the rounds before have brought has landed by now
    async with rig.running("caption.a", Story(asked)):
        await rig.until(lambda: len(rig.said("captions")) == 1)
    assert rounds(asked) == [0, 1, 2, 2]
    assert rig.said("captions")["m", 0].text == "w0 w1 w2"  # type: ignore[attr-defined]  # a Caption


@told
async def test_a_round_that_fails_for_now_is_asked_again_and_none_before_it() -> None:
    rig, asked = rig_with_a_window(), list[tuple[int, int]]()
    stage = Story(asked)
    stage.trouble = {1: Retryable("busy")}
    async with rig.running("caption.a", stage, backoff=Backoff(first_s=0.01, most_s=0.1)):
        await rig.until(lambda: len(rig.said("captions")) == 1)
    assert rounds(asked) == [0, 1, 1, 2]


@told
async def test_a_round_that_waits_for_a_table_goes_on_with_what_is_known() -> None:
    rig, asked = rig_with_a_window(), list[tuple[int, int]]()
    stage = Story(asked)
    stage.trouble = {1: NotYet("no-context", topic="contexts", key="m\0000.0", within_s=5, goes_without=True)}
    async with rig.running("caption.a", stage):
        await rig.until(lambda: len(rig.said("captions")) == 1)
    assert rounds(asked) == [0, 1, 1, 2]


@told
async def test_a_round_that_is_rejected_fails_the_record_once() -> None:
    rig, asked = rig_with_a_window(), list[tuple[int, int]]()
    stage = Story(asked)
    stage.trouble = {1: Rejected("too large")}
    async with rig.running("caption.a", stage):
        await rig.until(lambda: len(rig.said("captions")) == 1)
        await asyncio.sleep(1)
    said = rig.said("captions")["m", 0]
    assert (said.outcome, said.reason) == ("failed", "too large")
    assert len(rig.dead("windows")) == 1
    assert rounds(asked) == [0, 1]
