"""The pool in virtual time: ten minutes of outage pass in a moment, on a server that has slots, a knee and bad days."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from streamproc.errors import Misconfigured, NotBegun, SingledOut, Throttled, Unreachable
from streamproc.messages import Tokens
from streamproc.models.budget import Budgets, Limits, OverBudget, Quota
from streamproc.models.call import Answer, Call, Heard
from streamproc.models.desk import Model, Record
from streamproc.models.failures import BadRequest, Garbled, Interrupted, Overdue, QuotaSpent, ServerFailed
from streamproc.models.pool import Pool
from streamproc.models.prompt import Picture, Prompt
from streamproc.models.replicas import Replicas
from streamproc.models.reply import Reply, Sample
from tests.models.virtual import Server, virtually

CALL = Call(prompt=Prompt("What happens?"))


class Simulated:
    """A replica: a server in virtual time, and what is wrong with it."""

    def __init__(self, url: str = "http://a/v1", **server: Any) -> None:
        self.url = url
        self.server = Server(**({"slots": 16, "knee": 16, "seconds": 0.25} | server))
        self.wrong: Callable[[Call], Coroutine[Any, Any, None]] | None = None
        self.refusal: Throttled | None = None
        """Instead of a line before its slots."""
        self.asked: list[tuple[float, Call, bool]] = []
        self.forgotten = 0
        self.one_each = self.foreseen = False
        """Whether each sample takes a call, and whether that is known; it is after the first."""
        self.sent: list[float] = []

    def forget(self) -> None:
        self.forgotten += 1

    def takes(self, samples: int) -> int:
        return samples if self.one_each and self.foreseen else 1

    async def ask(
        self, call: Call, *, deadline_s: float, with_data: bool = False, sent: Callable[[], None] = lambda: None
    ) -> Heard:
        loop = asyncio.get_running_loop()
        for _ in range(call.samples if self.one_each else 1):
            sent()
            self.sent.append(loop.time())
        self.foreseen = True
        self.asked.append((loop.time(), call, with_data))
        try:
            async with asyncio.timeout(deadline_s):
                if self.wrong is not None:
                    await self.wrong(call)
                if self.refusal is not None and self.server.served >= self.server.slots:
                    await asyncio.sleep(0.005)
                    raise self.refusal
                await self.server.serve()
        except TimeoutError as e:
            raise Overdue("no answer in time") from e
        sample = Sample(text="yes", finish="stop")
        return Heard(reply=Reply(samples=(sample,), model="m", tokens=Tokens(into=100, out=10)))


def raises(error: Exception) -> Callable[[Call], Coroutine[Any, Any, None]]:
    async def wrong(call: Call) -> None:
        raise error

    return wrong


def a_pool(*replicas: Simulated, records: list[Record] | None = None, **more: Any) -> Pool:
    starts_at = more.pop("starts_at", 4)
    model = Model(name="m", endpoints=[(r, 1.0) for r in replicas], quota=more.pop("quota", None), starts_at=starts_at)
    return Pool(
        [model, *more.pop("others", ())],
        rng=random.Random(1),
        record=records.append if records is not None else lambda _record: None,
        **more,
    )


async def busy(pool: Pool, *, callers: int, until: float, streams: int = 64) -> list[float]:
    """Callers who always have the next window; when each answer came."""
    loop, came = asyncio.get_running_loop(), list[float]()

    async def caller(number: int) -> None:
        while loop.time() < until:
            await pool.ask("m", CALL, stream=f"s{number % streams}")
            came.append(loop.time())

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(number))
    return came


def rate(came: Sequence[float], since: float, until: float) -> float:
    return sum(since <= t < until for t in came) / (until - since)


def test_an_answer_comes_with_what_it_took() -> None:
    async def main() -> Answer:
        return await a_pool(Simulated()).ask("m", CALL, stream="s")

    answer = virtually(main)
    assert (answer.model, answer.attempts, answer.queued_s) == ("m", 1, 0)
    assert answer.served_s > 0.05
    assert answer.tokens.into == 100


def test_a_call_about_a_feed_goes_before_others_in_the_server_too() -> None:
    replica = Simulated()

    async def main() -> None:
        pool = a_pool(replica)
        await pool.ask("m", CALL, stream="feed", live=True)
        await pool.ask("m", CALL, stream="file", live=False)

    virtually(main)
    assert [call.yields for _, call, _ in replica.asked] == [False, True]


async def _die(call: Call) -> None:
    raise Unreachable("a", "refused", remedy="")


async def _hang(call: Call) -> None:
    await asyncio.Event().wait()


async def _slow(call: Call) -> None:
    await asyncio.sleep(5)


@pytest.mark.parametrize("wrong", [_die, _hang, _slow])
def test_one_of_three_replicas_gone_costs_its_share_and_no_window(
    wrong: Callable[[Call], Coroutine[Any, Any, None]],
) -> None:
    async def main() -> tuple[list[float], list[Simulated]]:
        replicas = [Simulated(f"http://{n}/v1", seed=i) for i, n in enumerate("abc")]
        pool = a_pool(*replicas)

        async def accident() -> None:
            await asyncio.sleep(20)
            replicas[1].wrong = wrong

        async with asyncio.TaskGroup() as group:
            group.create_task(accident())
            task = group.create_task(busy(pool, callers=72, until=40))
        return task.result(), replicas

    came, _ = virtually(main)
    before, after = rate(came, 12, 20), rate(came, 25, 40)
    assert after > 0.6 * before


def test_an_outage_and_then_429s_lose_nothing_and_call_little() -> None:
    async def main() -> tuple[list[float], Simulated]:
        replica = Simulated()
        pool = a_pool(replica)

        async def accident() -> None:
            await asyncio.sleep(20)
            replica.wrong = raises(Unreachable("a", "refused", remedy=""))
            await asyncio.sleep(600)
            replica.wrong = raises(Throttled("429"))
            await asyncio.sleep(300)
            replica.wrong = None

        async with asyncio.TaskGroup() as group:
            group.create_task(accident())
            task = group.create_task(busy(pool, callers=32, until=1000))
        return task.result(), replica

    came, replica = virtually(main)
    calls = [t for t, _, _ in replica.asked if 21 <= t < 920]
    assert len(calls) <= 900
    assert max(sum(s <= t < s + 10 for t in calls) for s in range(21, 920)) <= 10
    assert rate(came, 960, 1000) > 0.9 * rate(came, 10, 20)


def test_an_outage_is_told_once_with_its_reason_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        replica = Simulated()
        pool = a_pool(replica)
        async with asyncio.TaskGroup() as group:
            group.create_task(busy(pool, callers=8, until=40))
            await asyncio.sleep(5)
            replica.wrong = raises(Unreachable("model 'm'", "it answers as 'x'", remedy="Correct its name"))
            await asyncio.sleep(20)
            replica.wrong = None
            await asyncio.sleep(10)
            replica.wrong = raises(Throttled("m", retry_after_s=1))  # too many calls are no outage
            await asyncio.sleep(1)
            replica.wrong = None

    with caplog.at_level("WARNING"):
        virtually(main)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("streamproc.models")]
    assert len(told) == 2, told
    assert "http://a/v1" in told[0]
    assert "it answers as 'x'" in told[0]
    assert "answers again" in told[1]


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (Throttled("429 slow down", retry_after_s=2), "calls wait: 429 slow down"),
        (Throttled("429 slow down"), "calls wait: 429 slow down"),
        (
            QuotaSpent("429 check your plan", retry_after_s=7200),
            "nothing is asked for 2.0 h but one call every 5 min: 429 check",
        ),
        (QuotaSpent("429 check your plan"), "nothing is asked for "),
        (
            Throttled("429 no", retry_after_s=999_999),
            "as it says, nothing is asked for 11.6 days but one call every 5 min: 429 no",
        ),
        (Throttled("429 no", retry_after_s=120), "as it says, nothing is asked for 2 min: 429 no"),
    ],
)
def test_an_endpoint_that_sends_everybody_away_is_told_of_as_an_outage_is(
    caplog: pytest.LogCaptureFixture, refusal: Throttled, says: str
) -> None:
    """A run that says nothing while it waits for a quota until midnight looks like one that hangs."""

    async def main() -> None:
        replica = Simulated()
        replica.wrong = raises(refusal)
        pool = a_pool(replica, wall=lambda: 0.0)
        asks = [asyncio.create_task(pool.ask("m", CALL, stream="s")) for _ in range(8)]
        await asyncio.sleep(60)
        told = [record.getMessage() for record in caplog.records if record.name.startswith("streamproc.models")]
        assert len(told) == 1, told
        assert says in told[0]
        replica.wrong = None
        await asyncio.gather(*asks)

    with caplog.at_level("WARNING"):
        virtually(main)
    assert "answers again" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("refusal", [Throttled("429", retry_after_s=999_999), QuotaSpent("429", retry_after_s=999_999)])
def test_however_long_a_server_wants_to_be_left_alone_one_call_looks_again_now_and_then(refusal: Throttled) -> None:
    """Servers err, and quotas are raised: else four answers of 429 stop a run for eleven days."""

    async def main() -> tuple[list[float], float]:
        loop, replica = asyncio.get_running_loop(), Simulated()
        replica.wrong = raises(refusal)
        pool = a_pool(replica)
        asks = [asyncio.create_task(pool.ask("m", CALL, stream="s")) for _ in range(8)]
        await asyncio.sleep(3600)
        replica.wrong = None
        await asyncio.gather(*asks)
        return [t for t, _, _ in replica.asked if 1 < t < 3600], loop.time()

    looked, ended = virtually(main)
    assert ended < 3600 + 310
    assert len(looked) <= 12


@pytest.mark.parametrize("wrong", [Unreachable("m", "404", remedy="Check the URL"), ServerFailed("500")])
def test_an_outage_that_does_not_end_is_told_again_ever_more_rarely(
    caplog: pytest.LogCaptureFixture, wrong: Exception
) -> None:
    """A wrong path is no outage that ends by itself; what is told once, at its beginning, nobody sees any more."""

    async def main() -> None:
        replica = Simulated()
        replica.wrong = raises(wrong)
        pool = a_pool(replica)
        asks = [asyncio.create_task(pool.ask("m", CALL, stream="s")) for _ in range(8)]
        await asyncio.sleep(86_400)
        replica.wrong = None
        await asyncio.gather(*asks)

    with caplog.at_level("WARNING"):
        virtually(main)
    told = [r.getMessage() for r in caplog.records if r.name.startswith("streamproc.models")]
    assert str(wrong) in told[0]
    assert all("still out after" in line and str(wrong) in line for line in told[1:-1])
    assert "after 2 min" in told[2] or "after 3 min" in told[2]
    assert 24 <= len(told) <= 34
    assert "answers again" in told[-1]


def test_retry_after_is_kept_even_while_older_calls_still_come_back() -> None:
    async def main() -> list[float]:
        replica = Simulated()
        pool = a_pool(replica)
        await busy(pool, callers=16, until=10)
        at, began = list[float](), asyncio.get_running_loop().time()
        replica.wrong = raises(Throttled("429", retry_after_s=40))
        asks = [asyncio.create_task(pool.ask("m", CALL, stream="s")) for _ in range(20)]
        await asyncio.sleep(5)
        replica.wrong = None
        replica.asked.clear()
        await asyncio.gather(*asks)
        at += [t - began for t, _, _ in replica.asked]
        return at

    assert min(virtually(main)) >= 40


def test_a_call_that_alone_fails_fails_of_itself_and_the_others_go_through() -> None:
    poison = Call(prompt=Prompt("poison"))

    async def main() -> tuple[list[float], int]:
        replica = Simulated()

        async def wrong(call: Call) -> None:
            if call is poison:
                raise ServerFailed("500")

        replica.wrong = wrong
        pool = a_pool(replica)

        async def poisoned() -> None:
            with pytest.raises(SingledOut, match="500"):
                await pool.ask("m", poison, stream="p")

        async with asyncio.TaskGroup() as group:
            group.create_task(poisoned())
            task = group.create_task(busy(pool, callers=16, until=30))
        return task.result(), sum(c is poison for _, c, _ in replica.asked)

    came, tries = virtually(main)
    assert tries == 4
    assert rate(came, 10, 30) > 30


def test_a_lone_call_that_fails_is_told_from_an_outage_by_a_canary() -> None:
    poison = Call(prompt=Prompt("poison"))

    async def main() -> None:
        replica = Simulated()

        async def wrong(call: Call) -> None:
            if call is poison:
                raise Interrupted("reset")

        replica.wrong = wrong
        with pytest.raises(SingledOut, match="reset"):
            await a_pool(replica).ask("m", poison, stream="p")

    virtually(main)


def test_a_lone_call_waits_out_an_outage_of_errors() -> None:
    async def main() -> Answer:
        replica = Simulated()
        replica.wrong = raises(ServerFailed("500"))
        ask = asyncio.create_task(a_pool(replica).ask("m", CALL, stream="p"))
        await asyncio.sleep(900)
        assert not ask.done()
        replica.wrong = None
        return await ask

    assert virtually(main).attempts > 5


def test_a_rejected_call_is_raised_at_once_and_is_a_sign_of_life() -> None:
    async def main() -> Pool:
        replica = Simulated()
        replica.wrong = raises(BadRequest("400"))
        pool = a_pool(replica)
        for _ in range(5):
            with pytest.raises(BadRequest):
                await pool.ask("m", CALL, stream="s")
        return pool

    assert virtually(main).status()[0].replicas[0].circuit == "closed"


def test_a_stream_stays_with_one_replica_also_when_all_are_busy() -> None:
    async def main() -> list[Simulated]:
        replicas = [Simulated(f"http://{n}/v1") for n in "abc"]
        pool = a_pool(*replicas)
        loop = asyncio.get_running_loop()

        async def caller(stream: str) -> None:
            while loop.time() < 30:
                await pool.ask("m", Call(prompt=Prompt(stream)), stream=stream)

        async with asyncio.TaskGroup() as group:
            for number in range(120):
                group.create_task(caller(f"s{number % 60}"))
        return replicas

    replicas = virtually(main)
    for number in range(60):
        asked = [sum(c.prompt.question == f"s{number}" for _, c, _ in r.asked) for r in replicas]
        assert max(asked) >= 0.6 * sum(asked)


def test_live_goes_before_replay() -> None:
    async def main() -> tuple[float, float]:
        pool = a_pool(Simulated(slots=4))
        queued: dict[bool, list[float]] = {True: [], False: []}

        async def caller(*, live: bool) -> None:
            while asyncio.get_running_loop().time() < 60:
                answer = await pool.ask("m", CALL, stream="s", live=live)
                queued[live].append(answer.queued_s)

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(caller(live=number < 2))
        return max(queued[True][10:]), max(queued[False][10:])

    live, replay = virtually(main)
    assert live < 2 < replay


def test_hedges_are_few_and_carry_their_pictures() -> None:
    async def main() -> tuple[list[Record], list[Simulated]]:
        replicas = [Simulated(f"http://{n}/v1", seed=i) for i, n in enumerate("abc")]
        rng = random.Random(7)

        async def sometimes(call: Call) -> None:
            if rng.random() < 0.02:
                await asyncio.sleep(20)

        for replica in replicas:
            replica.wrong = sometimes
        records = list[Record]()
        await busy(a_pool(*replicas, records=records), callers=24, until=120)
        return records, replicas

    records, replicas = virtually(main)
    hedges = sum(r.hedge for r in records)
    assert 0 < hedges <= 0.05 * len(records)
    assert sum(with_data for r in replicas for _, _, with_data in r.asked) >= hedges
    long = sum(r.seconds > 15 for r in records if r.outcome == "done")
    assert long < 0.2 * hedges


def test_a_hedge_is_not_judged_by_the_silence_of_the_replica_it_stepped_in_for() -> None:
    """The first fails while the second, which is slow and well, has the call: what was sent to it is paid for."""
    slow = Call(prompt=Prompt("slow"))

    async def main() -> tuple[Answer, list[Record], list[str]]:
        records, replicas = list[Record](), [Simulated(f"http://{n}/v1", slots=64, knee=64) for n in "ab"]
        pool = a_pool(*replicas, records=records)
        await busy(pool, callers=16, until=20)
        asked = list[Simulated]()

        def told(replica: Simulated) -> Callable[[Call], Coroutine[Any, Any, None]]:
            async def wrong(call: Call) -> None:
                if call is slow:
                    asked.append(replica)
                    await asyncio.sleep(2.0 if len(asked) == 1 else 10.0)
                    if asked[0] is replica:
                        raise ServerFailed("500")
                elif asked and asked[0] is replica:
                    await asyncio.sleep(60)  # it is silent to everybody, while the others answer

            return wrong

        for replica in replicas:
            replica.wrong = told(replica)
        records.clear()
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            ask = group.create_task(pool.ask("m", slow, stream="s"))
            group.create_task(busy(pool, callers=16, until=loop.time() + 15))
        return ask.result(), records, [r.url for r in asked]

    answer, records, asked = virtually(main)
    assert 10 <= answer.served_s < 11
    assert len(set(asked)) == len(asked) == 2, "neither is asked twice"
    assert [r.url for r in records if r.seconds > 10 and r.outcome == "done"] == [asked[1]]


def test_another_model_stands_in_and_says_so() -> None:
    async def main() -> Answer:
        first, second = Simulated("http://a/v1"), Simulated("http://b/v1")
        first.wrong = _die
        models = [
            Model(name="m", endpoints=[(first, 1.0)], stand_ins=("n",)),
            Model(name="n", endpoints=[(second, 1.0)]),
        ]
        return await Pool(models, rng=random.Random(1)).ask("m", CALL, stream="s")

    answer = virtually(main)
    assert answer.model == "n"
    assert "m is out" in answer.notes[0]


@pytest.mark.parametrize(
    "wrong",
    [Unreachable("a", "refused", remedy=""), ServerFailed("500"), QuotaSpent("429", retry_after_s=7200)],
)
def test_a_model_that_is_back_is_asked_again_though_its_stand_in_answers(wrong: Exception) -> None:
    """Who stands in takes all calls; were none of them to look, one short outage would be for ever."""
    back_at = 60.0

    async def main() -> tuple[list[tuple[float, str]], list[float]]:
        own, other = Simulated("http://a/v1"), Simulated("http://b/v1")
        own.wrong = raises(wrong)
        pool = Pool(
            [
                Model(name="m", endpoints=[(own, 1.0)], stand_ins=("other",)),
                Model(name="other", endpoints=[(other, 1.0)]),
            ],
            rng=random.Random(1),
        )
        loop, came = asyncio.get_running_loop(), list[tuple[float, str]]()

        async def caller() -> None:
            while loop.time() < 400:
                answer = await pool.ask("m", CALL, stream="s")
                came.append((loop.time(), answer.model))

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(caller())
            await asyncio.sleep(back_at)
            own.wrong = None
        return came, [t for t, _, _ in own.asked if 1 < t < back_at]

    came, looked = virtually(main)
    assert {model for t, model in came if t < back_at} == {"other"}
    assert {model for t, model in came if t > 310} == {"m"}
    assert len(looked) <= 10


def test_a_quota_a_minute_is_kept() -> None:
    async def main() -> list[float]:
        replica = Simulated(seconds=0.01)
        pool = a_pool(replica, quota=Quota(per_minute=30))
        await busy(pool, callers=10, until=290)
        return [t for t, _, _ in replica.asked]

    asked = virtually(main)
    assert max(sum(s <= t < s + 60 for t in asked) for s in range(240)) <= 30
    assert len(asked) >= 140


@pytest.mark.parametrize("foreseen", [True, False])
def test_samples_that_take_a_call_each_count_as_calls(*, foreseen: bool) -> None:
    call = Call(prompt=Prompt("?"), samples=5)

    async def main() -> tuple[list[float], Budgets, list[Record]]:
        replica, records, budgets = Simulated(seconds=1.0), list[Record](), Budgets({"task": Limits(calls=10_000)})
        replica.one_each, replica.foreseen = True, foreseen
        pool = a_pool(replica, quota=Quota(per_minute=15), budgets=budgets, records=records, starts_at=16)
        asks = [pool.ask("m", call, stream="s", budgets=("task",)) for _ in range(30)]
        await asyncio.gather(*asks)
        return replica.sent, budgets, records

    sent, budgets, records = virtually(main)
    assert len(sent) == budgets.spent["task"].calls == sum(r.calls for r in records) == 150
    if foreseen:
        assert max(sum(s <= t < s + 60 for t in sent) for s in range(600)) == 15
    else:  # those that began before anything was known are over it, and made up for
        assert sum(t < 60 for t in sent) <= 75
        assert sum(60 <= t < 120 for t in sent) <= 15


def test_a_quota_a_day_ends_in_a_wait_that_is_declared() -> None:
    midnight = 1_800_000_000 // 86_400 * 86_400

    async def main() -> tuple[list[float], float]:
        loop, replica = asyncio.get_running_loop(), Simulated()
        pool = a_pool(replica, quota=Quota(per_day=50), wall=lambda: midnight + 86_400 - 600 + loop.time())
        asks = [asyncio.create_task(pool.ask("m", CALL, stream="s")) for _ in range(80)]
        await asyncio.sleep(300)
        waits_s = pool.status()[0].waits_s
        await asyncio.gather(*asks)
        return [t for t, _, _ in replica.asked], waits_s

    asked, waits_s = virtually(main)
    assert waits_s == pytest.approx(300)
    assert sum(t < 600 for t in asked) == 50
    assert len(asked) == 80


def test_a_quota_the_provider_says_is_spent_is_no_storm() -> None:
    """One call every five minutes looks whether it has been raised."""

    async def main() -> int:
        replica = Simulated()
        replica.wrong = raises(QuotaSpent("429", retry_after_s=7200))
        pool = a_pool(replica)
        asks = [asyncio.create_task(pool.ask("m", CALL, stream="s")) for _ in range(50)]
        await asyncio.sleep(7000)
        calls = len(replica.asked)
        replica.wrong = None
        await asyncio.gather(*asks)
        return calls

    assert virtually(main) <= 4 + 7000 / 300


def test_a_budget_takes_samples_then_frames_and_then_stops() -> None:
    pictures = tuple(Picture(b"", t) for t in range(8))
    call = Call(prompt=Prompt("?", pictures=pictures), samples=4)

    async def main() -> list[Call]:
        replica = Simulated()
        pool = a_pool(replica, budgets=Budgets({"task": Limits(calls=10)}))
        notes = list[str]()
        for _ in range(10):
            notes += (await pool.ask("m", call, stream="s", budgets=("task", "s"))).notes
        with pytest.raises(OverBudget, match="task"):
            await pool.ask("m", call, stream="s", budgets=("task", "s"))
        assert any("1 of 4 samples" in n for n in notes)
        assert any("4 of 8 frames" in n for n in notes)
        return [c for _, c, _ in replica.asked]

    calls = virtually(main)
    assert [c.samples for c in calls] == [4] * 8 + [1] * 2
    assert [len(c.prompt.pictures) for c in calls] == [8] * 9 + [4]


def test_patience_ends_a_wait_with_the_name_of_the_hop() -> None:
    async def main() -> None:
        replica = Simulated()
        replica.wrong = _die
        with pytest.raises(Unreachable, match="model 'm'"):
            await a_pool(replica).ask("m", CALL, stream="s", patience_s=60)

    virtually(main)


def test_a_cancelled_call_gives_its_place_back() -> None:
    async def main() -> Pool:
        replica = Simulated(slots=2, seconds=10)
        pool = a_pool(replica)
        asks = [asyncio.create_task(pool.ask("m", CALL, stream="s")) for _ in range(40)]
        await asyncio.sleep(1)
        for ask in asks:
            ask.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
        return pool

    replica = virtually(main).status()[0].replicas[0]
    assert (replica.in_flight, replica.waiting) == (0, 0)


def test_a_replica_that_comes_back_is_shown_its_pictures_again() -> None:
    async def main() -> int:
        replica = Simulated()
        replica.wrong = _die
        ask = asyncio.create_task(a_pool(replica).ask("m", CALL, stream="s"))
        await asyncio.sleep(10)
        replica.wrong = None
        await ask
        return replica.forgotten

    assert virtually(main) == 1


def test_what_does_not_fit_together_is_said_at_the_start() -> None:
    async def main() -> None:
        with pytest.raises(Misconfigured, match="'x'"):
            Pool([Model(name="m", endpoints=[(Simulated(), 1.0)], stand_ins=("x",))])
        with pytest.raises(Misconfigured, match="no model 'y'"):
            await a_pool(Simulated()).ask("y", CALL, stream="s")

    virtually(main)


def test_a_trial_that_hangs_does_not_keep_everybody_waiting_for_its_deadline() -> None:
    async def main() -> list[float]:
        replica = Simulated()
        pool = a_pool(replica)

        async def accident() -> None:
            await asyncio.sleep(20)
            replica.wrong = raises(ServerFailed("500"))
            await asyncio.sleep(20)
            replica.wrong = _hang
            await asyncio.sleep(60)
            replica.wrong = None

        async with asyncio.TaskGroup() as group:
            group.create_task(accident())
            task = group.create_task(busy(pool, callers=16, until=200))
        return task.result()

    assert rate(virtually(main), 150, 200) > 30


def test_tokens_nobody_counted_are_estimated_and_said_so() -> None:
    async def main() -> Answer:
        silent = Reply(samples=(Sample(text="a" * 300, finish="stop"),), model="m", tokens=None)

        class Silent(Simulated):
            async def ask(self, call: Call, **more: Any) -> Heard:
                return Heard(reply=silent)

        pool = a_pool(Silent(), budgets=Budgets({"task": Limits(tokens=1000)}))
        return await pool.ask("m", CALL, stream="s", budgets=("task",))

    answer = virtually(main)
    assert answer.tokens.out == 100
    assert "estimated" in answer.notes[0]
    assert answer.prompt == CALL.prompt.digest


def test_a_caller_who_goes_away_as_it_gets_the_trial_leaves_it_to_the_next() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        replicas = Replicas([(Simulated(), 1.0)], clock=loop.time, wall=loop.time, rng=random.Random(1))
        replicas.all[0].circuit.failed(0.0, started=0.0, why="refused", at_once=True)
        caller = asyncio.create_task(replicas.place("s", live=True))
        await asyncio.sleep(0.5)
        replicas.all[0].circuit.until = loop.time()
        replicas.serve()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await replicas.place("s", live=True) is replicas.all[0]
        return replicas.all[0].circuit.state

    assert virtually(main) == "trying"


# what nobody can read -----------------------------------------------------------------------------------------------


def test_an_answer_that_nobody_can_read_is_its_calls_own_failure_and_no_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> tuple[list[Any], str, float]:
        replica = Simulated()
        replica.wrong = raises(Garbled("no JSON"))
        pool = a_pool(replica)
        ended = await asyncio.gather(*(pool.ask("m", CALL, stream="s") for _ in range(40)), return_exceptions=True)
        return ended, pool.status()[0].replicas[0].circuit, asyncio.get_running_loop().time()

    ended, circuit, seconds = virtually(main)
    assert [type(e) for e in ended] == [SingledOut] * 40
    assert circuit == "closed"
    assert seconds < 1.0  # nobody waited for another answer of the same kind
    assert not caplog.records


def test_where_one_of_two_replicas_answers_what_nobody_can_read_the_other_is_asked() -> None:
    async def main() -> tuple[list[Answer], int]:
        mad, sane = Simulated("http://a/v1"), Simulated("http://b/v1")
        mad.wrong = raises(Garbled("no JSON"))
        pool = a_pool(mad, sane)
        return await asyncio.gather(*(pool.ask("m", CALL, stream=f"s{i}") for i in range(40))), len(mad.asked)

    answers, mad = virtually(main)
    assert len(answers) == 40
    assert 0 < mad <= 40


# 429 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("starts_at", [4, 64])
@pytest.mark.parametrize("rest_s", [None, 1.0])
def test_a_server_that_refuses_who_has_no_slot_is_kept_busy_and_rarely_asked_for_more(
    starts_at: int, rest_s: float | None
) -> None:
    async def main() -> tuple[Sequence[float], Simulated]:
        replica = Simulated(slots=8, knee=1000, seconds=0.25)
        replica.refusal = Throttled("429", retry_after_s=rest_s)
        pool = a_pool(replica, starts_at=starts_at)
        return await busy(pool, callers=64, until=180), replica

    came, replica = virtually(main)
    ideal = 8 / 0.25 / 1.03  # the mean of how the simulated server's calls spread
    assert rate(came, 60, 180) >= 0.9 * ideal
    asked = sum(60 <= at < 180 for at, _, _ in replica.asked)
    assert asked - sum(60 <= at < 180 for at in came) < 20


def test_a_server_that_grew_behind_its_429s_is_found_out() -> None:
    async def main() -> Sequence[float]:
        replica = Simulated(slots=8, knee=1000, seconds=0.25)
        replica.refusal = Throttled("429")
        pool = a_pool(replica)

        async def grow() -> None:
            await asyncio.sleep(300)
            replica.server.slots = 24

        async with asyncio.TaskGroup() as group:
            group.create_task(grow())
            task = group.create_task(busy(pool, callers=64, until=600))
        return task.result()

    assert rate(virtually(main), 500, 600) >= 0.9 * 24 / 0.25 / 1.03


# a drain ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [raises(Unreachable("a", "refused", remedy="")), raises(ServerFailed("m")), raises(QuotaSpent("m"))]
)
def test_once_it_drains_nobody_waits_out_an_outage(wrong: Callable[[Call], Coroutine[Any, Any, None]]) -> None:
    async def main() -> tuple[list[Any], float]:
        loop, replica = asyncio.get_running_loop(), Simulated()
        replica.wrong = wrong
        pool = a_pool(replica)
        waiting = [asyncio.create_task(pool.ask("m", CALL, stream=f"s{i}")) for i in range(40)]
        await asyncio.sleep(60)
        assert not any(task.done() for task in waiting)
        pool.drain()
        began = loop.time()
        ended = await asyncio.gather(*waiting, pool.ask("m", CALL, stream="another"), return_exceptions=True)
        return ended, loop.time() - began

    ended, seconds = virtually(main)
    assert [type(e) for e in ended] == [NotBegun] * 41
    assert seconds < 0.1  # of virtual time


def test_what_has_been_sent_is_waited_for_while_it_drains_and_nothing_more_is_sent() -> None:
    async def main() -> tuple[list[Any], int, int]:
        replica = Simulated(slots=8, knee=8, seconds=5.0)
        pool = a_pool(replica)
        calls = [asyncio.create_task(pool.ask("m", CALL, stream=f"s{i}")) for i in range(40)]
        await asyncio.sleep(1)
        sent = len(replica.asked)
        pool.drain()
        return await asyncio.gather(*calls, return_exceptions=True), sent, len(replica.asked)

    ended, sent, in_all = virtually(main)
    assert 0 < sent == in_all < 40
    assert sum(isinstance(e, Answer) for e in ended) == sent
    assert sum(isinstance(e, NotBegun) for e in ended) == 40 - sent
