"""Records that expired unread, of writers that land out of order: nothing that is read shows what is missing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

from hypothesis import given
from hypothesis import strategies as st

from streamproc.messages import Caption, Detection, Source, Window
from streamproc.runner.cover import Accounted
from streamproc.stage import Each, Look, Stage
from streamproc.topics import key_of, topic
from streamproc.wire import decode
from tests.runner.rig import Rig, told
from tests.runner.test_ends import Decode
from tests.runner.test_fold import Collect, detections, rows
from tests.runner.test_named import EVENTS, verdicts
from tests.sim import clock

RETENTION_S = topic("detections").retention_hours * 3600


class See(Each):
    """Answers later ones sooner."""

    reads, writes = ("windows",), ("detections",)

    async def handle(self, record: Window, look: Look) -> Detection:
        await asyncio.sleep(1 / (1 + record.index))
        return Detection.of(record, events=())


class Write(Each):
    """Reads what lands out of order."""

    reads, writes = ("detections",), ("captions",)

    async def handle(self, record: Detection, look: Look) -> Caption:
        await asyncio.sleep(0.01)
        return Caption.of(record, text="seen")


def accounted(rig: Rig, service: str) -> Accounted:
    whole = Accounted()
    for stored in rig.log.under("coverage", key_of("m", service)):
        whole.hear(decode(topic("coverage"), stored))
    return whole


async def see(rig: Rig, source: Source, *indexes: int) -> None:
    """detect.a looks at windows, and says so in its coverage."""
    before = len(rig.records("detections"))
    rig.windows(source, *sorted(indexes))
    async with rig.running("detect.a", See()):
        await rig.until(lambda: len(rig.records("detections")) == before + len(indexes))


def expire(rig: Rig) -> None:
    rig.log.expire("detections", 0, before=rig.log.span("detections", 0).end)


def the_end(rig: Rig) -> bool:
    return any(r.ended for r in rig.records("events"))


@told
async def test_a_file_does_not_wait_for_what_retention_took_before_it_was_read() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", "detect.b", "dedup", count=6)
    await see(rig, source, 0, 1)
    async with rig.running("dedup", Collect("detect.a", "detect.b")) as service:
        await rig.until(lambda: service.shared.counts.records_in == 2)
    await see(rig, source, 2, 3)
    await asyncio.sleep(RETENTION_S + 3600)
    rig.log.trim()
    await see(rig, source, 5, 4)
    detections(rig, source, "detect.b", *range(6))
    async with rig.running("dedup", Collect("detect.a", "detect.b")) as service:
        await rig.until(lambda: len(rows(rig)) == 6)
        await see(rig, source, 6)
        detections(rig, source, "detect.b", 6)
        await rig.until(lambda: the_end(rig))
    expected = ["expired" if i in (2, 3) else "done" for i in range(6)]
    assert rows(rig)[2:] == [f"{i}:detect.a={expected[i]},detect.b=done" for i in range(2, 6)]
    assert not rig.log.state_keys("park")
    assert accounted(rig, "dedup").complete


@told
async def test_an_end_that_expired_unread_still_ends_the_stream() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", "dedup", count=4)
    await see(rig, source, 0)
    async with rig.running("dedup", Collect("detect.a")):
        await rig.until(lambda: len(rows(rig)) == 1)
    await see(rig, source, 1, 2, 3, 4)
    expire(rig)
    async with rig.running("dedup", Collect("detect.a")):
        await rig.until(lambda: the_end(rig))
    assert rows(rig) == ["0:detect.a=done", "1:detect.a=expired"], "one gap for all of them"
    (end,) = [r for r in rig.records("events") if r.ended]
    assert end.index == end.count == 2
    assert accounted(rig, "dedup").complete


@told
async def test_who_is_killed_while_it_looks_leaves_the_looking_to_the_next() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", "dedup", count=5)
    await see(rig, source, 0)
    async with rig.running("dedup", Collect("detect.a")):
        await rig.until(lambda: len(rows(rig)) == 1)
    await see(rig, source, 1, 2)
    expire(rig)
    await see(rig, source, 4, 3, 5)
    for _ in range(3):
        async with rig.killed("dedup", Collect("detect.a")):
            await rig.until(lambda: rig.log.ledgers["dedup", 0].progress.get("detections") == 6)
    async with rig.killed("dedup", Collect("detect.a")):
        await rig.until(lambda: the_end(rig))
    assert rows(rig) == ["0:detect.a=done", "1:detect.a=expired", "3:detect.a=done", "4:detect.a=done"]
    assert not rig.log.state_keys("park")


@told
async def test_a_hole_that_waits_for_another_service_waits_over_a_kill() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", "detect.b", "dedup", count=3)
    await see(rig, source, 0)
    async with rig.running("dedup", Collect("detect.a", "detect.b")) as service:
        await rig.until(lambda: service.shared.counts.records_in == 1)
    await see(rig, source, 1)
    expire(rig)
    async with rig.killed("dedup", Collect("detect.a", "detect.b")) as service:
        await rig.until(lambda: len(rig.log.state_keys("park")) == 2)
        assert service.shared.counts.expired > 0
    detections(rig, source, "detect.b", 0, 1)
    async with rig.running("dedup", Collect("detect.a", "detect.b")):
        await rig.until(lambda: len(rows(rig)) == 2)
    assert rows(rig)[1] == "1:detect.a=expired,detect.b=done"


@told
async def test_an_each_that_reads_what_lands_out_of_order_accounts_for_what_expired_unread() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", "caption", count=7)
    await see(rig, source, 0, 1)
    async with rig.running("caption", Write()):
        await rig.until(lambda: len(rig.records("captions")) == 2)
    await see(rig, source, 4, 2, 3)
    expire(rig)
    await see(rig, source, 6, 5)
    async with rig.running("caption", Write()) as service:
        await rig.until(lambda: len(rig.records("captions")) == 5, within_s=300)
        await see(rig, source, 7)
        await rig.until(lambda: accounted(rig, "caption").complete)
    said = {r.index: (r.until, r.outcome, r.reason) for r in rig.records("captions")}
    assert said.pop(2) == (5, "skipped", "expired")
    assert said == {i: (i + 1, "done", None) for i in (0, 1, 5, 6, 7)}
    assert service.shared.counts.expired > 0
    assert accounted(rig, "caption").complete


@told
async def test_what_is_in_a_call_or_was_not_owed_is_no_hole() -> None:
    class Slow(Write):
        async def handle(self, record: Detection, look: Look) -> Caption:
            await asyncio.sleep(200 if record.index == 3 else 0.01)
            return Caption.of(record, text="seen")

    rig = Rig.of(partitions=1)
    sources = [
        rig.source("m", *names, count=50, revision=r, from_index=2 * r)
        for r, names in enumerate([("detect.a",), ("detect.a", "caption")])
    ]
    rig.windows(sources[0], 0, 1)
    rig.windows(sources[1], 2)
    async with rig.running("detect.a", See()):
        async with rig.running("caption", Slow()):
            await rig.until(lambda: len(rig.records("captions")) == 1)
        await rig.until(lambda: len(rig.records("detections")) == 3)
    expire(rig)
    await see(rig, sources[1], 4, 3)
    async with rig.running("caption", Slow()) as service:
        await rig.until(lambda: len(rig.records("captions")) == 3, within_s=1000)
    assert sorted((r.index, r.outcome) for r in rig.records("captions")) == [(i, "done") for i in (2, 3, 4)]
    assert service.shared.counts.expired == 2, "offsets; no number"


@told
async def test_a_service_that_begins_when_the_first_records_have_expired_skips_them() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", "dedup", count=4)
    await see(rig, source, 0, 1)
    expire(rig)
    await see(rig, source, 3, 2, 4)
    async with rig.running("dedup", Collect("detect.a")):
        await rig.until(lambda: the_end(rig))
    assert rows(rig) == ["0:detect.a=expired", "2:detect.a=done", "3:detect.a=done"]


@told
async def test_a_file_of_which_everything_expired_unread_ends_all_the_same() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", "dedup", "caption", count=4)
    await see(rig, source, 0, 1, 2, 3, 4)
    expire(rig)
    async with rig.running("dedup", Collect("detect.a")), rig.running("caption", Write()):
        await rig.until(lambda: the_end(rig) and accounted(rig, "caption").complete)
    assert rows(rig) == ["0:detect.a=expired"], "one gap for all of them"
    said = [(r.index, r.until, r.outcome, r.reason, r.count) for r in rig.records("captions")]
    assert said == [(0, 4, "skipped", "expired", None), (4, 5, "done", None, 4)]


@told
async def test_windows_that_expired_unread_at_the_end_of_a_file_are_found_by_the_decoders_coverage() -> None:
    rig = Rig.of(partitions=1)
    rig.source("m", "decode", "detect.a", count=3)
    async with rig.running("decode", Decode()):
        await rig.until(lambda: accounted(rig, "decode").complete)
    rig.log.expire("windows", 0, before=rig.log.span("windows", 0).end)
    async with rig.running("detect.a", See()):
        await rig.until(lambda: accounted(rig, "detect.a").complete)
    said = [(r.index, r.until, r.reason, r.count) for r in rig.records("detections")]
    assert said == [(0, 3, "expired", None), (3, 4, None, 3)]


@told
async def test_numbers_of_a_writers_own_are_not_those_that_it_reads_also_where_nothing_of_it_was_ever_read() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", "dedup", "ensemble", count=3)
    await see(rig, source, 0, 1, 2)
    async with rig.running("dedup", Collect("detect.a")):
        await rig.until(lambda: len(rows(rig)) == 3)
        rig.log.expire("events", 0, before=rig.log.span("events", 0).end)
        async with rig.running("ensemble", EVENTS) as service:
            await asyncio.sleep(200)
            assert not service.runners[0].book.jumped, "it has looked"
    assert verdicts(rig) == []


@told
async def test_what_a_fold_accounts_for_by_the_numbers_it_reads_is_not_missed_under_its_own() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", "dedup", "ensemble", count=5)
    await see(rig, source, 0, 1, 2)
    async with rig.running("dedup", Collect("detect.a")):
        await rig.until(lambda: len(rows(rig)) == 3)
        async with rig.running("ensemble", EVENTS):
            await rig.until(lambda: len(verdicts(rig)) == 3)
        await see(rig, source, 3, 4)
        await rig.until(lambda: len(rows(rig)) == 5)
        rig.log.expire("events", 0, before=rig.log.span("events", 0).end - 1)
        await see(rig, source, 5)
        async with rig.running("ensemble", EVENTS):
            await rig.until(lambda: any(v.ended for v in rig.records("verdicts")))
            await asyncio.sleep(200)
    assert verdicts(rig) == [f"{i}:dedup={'expired' if i == 3 else 'done'}" for i in range(5)]


@told
async def test_a_jump_brings_back_nothing_that_was_over_and_forgotten_or_never_ours() -> None:
    rig = Rig.of(partitions=1)
    over, foreign = rig.source("m", "detect.a", "caption", count=3), rig.source("x", "detect.a", count=3)
    await see(rig, over, 0, 1, 2, 3)
    await see(rig, foreign, 0, 1, 2, 3)
    async with rig.running("caption", Write()):
        await rig.until(lambda: len(rig.records("captions")) == 4)
    await asyncio.sleep(RETENTION_S)
    async with rig.running("caption", Write()):
        await rig.until(lambda: all(owner != "caption" for owner, *_ in rig.log.state_keys("guard")), within_s=7200)
    before = rig.log.span("detections", 0).end
    late = rig.source("late", "detect.a", "caption", count=3)
    rig.windows(late, 0, 1)
    async with rig.running("detect.a", See()):
        await rig.until(lambda: rig.log.span("detections", 0).end == before + 2)
        rig.log.expire("detections", 0, before=before + 1)
        rig.windows(late, 2, 3)
        async with rig.running("caption", Write()) as service:
            await rig.until(lambda: sum(r.stream == "late" for r in rig.records("captions")) == 4)
            assert len(service.runners[0].book.guards) == 1
    assert len(rig.records("captions")) == 8


@given(chance=st.randoms(use_true_random=False), fold=st.booleans(), markers=st.booleans())
def test_whatever_expires_when_every_number_has_one_outcome_in_the_end(
    chance: random.Random, fold: bool, markers: bool
) -> None:
    async def story() -> None:
        rig = Rig.of(partitions=1)
        rig.log.markers = markers
        models = ("detect.a", "detect.b") if fold else ("detect.a",)
        stages: dict[str, Callable[[], Stage]] = dict.fromkeys(models, See)
        stages["reader"] = (lambda: Collect(*models)) if fold else Write
        rig.windows(rig.source("m", *stages, count=8), *range(9))

        async def work(names: Iterable[str], done: Callable[[], bool]) -> None:
            async with AsyncExitStack() as running:
                for name in names:
                    ending = chance.choice([rig.running, rig.killed])
                    await running.enter_async_context(ending(name, stages[name]()))
                await rig.until(done, within_s=1000)

        def complete(*names: str) -> bool:
            return all(accounted(rig, name).complete for name in names)

        for _ in range(chance.randrange(5)):
            until = asyncio.get_running_loop().time() + chance.uniform(0, 1.5)
            names = chance.sample(list(stages), chance.randint(1, len(stages)))
            await work(names, lambda until=until: asyncio.get_running_loop().time() > until)  # type: ignore[misc]
            rig.log.expire("detections", 0, before=chance.randint(*rig.log.span("detections", 0)))
        await work(models, lambda: complete(*models))
        rig.log.expire("detections", 0, before=chance.randint(*rig.log.span("detections", 0)))
        await work(["reader"], lambda: complete("reader"))
        assert not rig.log.state_keys("park")
        told_of = [i for r in rig.records("captions") for i in range(r.index, r.until)]
        assert sorted(told_of) == ([] if fold else list(range(9)))
        assert the_end(rig) == fold

    clock.run(story())
