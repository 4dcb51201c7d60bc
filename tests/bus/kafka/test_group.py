"""Who gets what: claims, leavers, sleepers; and groups, topics and settings that do not fit."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer
from hypothesis import given
from hypothesis import strategies as st

from streamproc.bus.kafka import Kafka
from streamproc.bus.kafka.catalog import agreed
from streamproc.bus.kafka.group import Assignor, Claim, Listener, share
from streamproc.bus.kafka.insides import ConsumerProtocolMemberAssignment, TopicPartition
from streamproc.errors import Misconfigured, Unreachable
from tests.bus.kafka.conftest import Open
from tests.bus.kafka.world import bare, entries, eventually, leases, working

EVEN = [1] * 8


def test_the_later_of_two_claims_holds_a_partition() -> None:
    """The earlier is that of a member who slept through a rebalance."""
    shares = share({"a-sleeper": Claim([0, 1, 2, 3], 3, EVEN), "b": Claim([2, 3, 4, 5], 7, EVEN)}, EVEN, 8).given
    assert {2, 3, 4, 5} <= set(shares["b"])
    assert {0, 1} <= set(shares["a-sleeper"])


def test_a_leaver_keeps_what_it_holds_and_gets_no_more() -> None:
    shares = share(
        {"a": Claim([0, 1], 1, EVEN, leaving=True), "b": Claim([2], 1, EVEN), "c": Claim([], 0, EVEN)}, EVEN, 8
    ).given
    assert shares["a"] == [0, 1]
    assert sorted(shares["b"] + shares["c"]) == [2, 3, 4, 5, 6, 7]
    assert len(shares["b"]) == len(shares["c"]) == 3


def test_when_all_leave_what_nobody_holds_stays_with_nobody() -> None:
    assert share({"a": Claim([0], 1, EVEN, leaving=True)}, EVEN, 8).given == {"a": [0]}


def test_what_a_joiner_should_have_stays_with_its_owner_who_is_told_and_goes_once_it_is_let_go_of() -> None:
    a, b = Claim(list(range(8)), 1, EVEN), Claim([], 0, EVEN)
    first = share({"a": a, "b": b}, EVEN, 8)
    assert first.given == {"a": list(range(8)), "b": []}
    assert first.wanted == {"a": first.target["b"], "b": []}
    assert len(first.target["b"]) == 4
    gone, *parting = first.wanted["a"]
    held = [p for p in range(8) if p != gone]
    second = share({"a": Claim(held, 2, EVEN, parting=parting), "b": Claim([], 2, EVEN)}, EVEN, 8)
    assert second.target == first.target
    assert second.given == {"a": held, "b": [gone]}
    assert second.wanted == {"a": parting, "b": []}


def test_what_is_parted_with_stays_where_nobody_is_left_to_have_it() -> None:
    shares = share({"a": Claim(list(range(8)), 2, EVEN, parting=[6, 7])}, EVEN, 8)
    assert (shares.given, shares.wanted) == ({"a": list(range(8))}, {"a": []})


@st.composite
def claims_(draw: st.DrawFn) -> dict[str, Claim]:
    said = {}
    for member in draw(st.sets(st.text("abcdef", min_size=1, max_size=2), min_size=1)):
        held = draw(st.lists(st.integers(0, 9), max_size=10, unique=True))
        parting = draw(st.lists(st.sampled_from(held), unique=True)) if held else []
        said[member] = Claim(held, draw(st.integers(0, 3)), EVEN, draw(st.booleans()), parting)
    return said


claims = claims_()


@given(claims)
def test_no_partition_has_two_owners_and_none_is_forgotten_while_somebody_stays(said: dict[str, Claim]) -> None:
    shares = share(said, EVEN, 8)
    for spread in (shares.given, shares.target):
        given_ = sorted(p for ps in spread.values() for p in ps)
        assert len(set(given_)) == len(given_)
        if not all(claim.leaving for claim in said.values()):
            assert given_ == list(range(8))


@given(claims)
def test_nothing_is_taken_from_who_holds_it_and_nothing_is_wanted_of_who_leaves(said: dict[str, Claim]) -> None:
    shares = share(said, EVEN, 8)
    held = {p for claim in said.values() for p in claim.held if p < 8}
    for member, wanted in shares.wanted.items():
        assert set(wanted) <= set(shares.given[member]) & set(said[member].held)
        assert not (wanted and said[member].leaving)
    assert all(p in said[member].held for member, ps in shares.given.items() for p in held.intersection(ps))


@given(claims)
def test_shares_are_as_they_should_be_once_what_is_wanted_was_let_go_of(said: dict[str, Claim]) -> None:
    shares = share(said, EVEN, 8)
    after = {
        member: Claim([p for p in ps if p not in shares.wanted[member]], 4, EVEN, said[member].leaving)
        for member, ps in shares.given.items()
    }
    again = share(after, EVEN, 8)
    assert not any(again.wanted.values())
    assert sorted(map(len, again.given.values())) == sorted(map(len, shares.target.values()))


def assignor_of(weights: list[int]) -> Assignor:
    return Assignor(len(weights), claim=lambda: Claim([], 0, list(weights)), weights=lambda: weights)


def assigned(assignor: Assignor, *names: str) -> dict[str, list[int]]:
    members = {name: assignor.metadata({"t"}) for name in names}
    given_ = assignor.assign(None, members)
    return {name: sorted(place.partition for place in said.partitions()) for name, said in given_.items()}


def test_partition_p_of_every_topic_goes_to_one_member() -> None:
    assignor = assignor_of([1] * 4)
    said = assignor.assign(None, {name: assignor.metadata({"s", "t"}) for name in "ab"})
    for assignment in said.values():
        by_topic: dict[str, set[int]] = {}
        for topic, partition in ConsumerProtocolMemberAssignment.decode(assignment.encode()).partitions():
            by_topic.setdefault(topic, set()).add(partition)
        assert by_topic["s"] == by_topic["t"]


def test_two_assignors_of_one_process_share_nothing() -> None:
    """aiokafka's sticky one keeps its state on the class."""
    first, second = (assignor_of([1] * 4) for _ in range(2))
    assert assigned(first, "a", "b")["a"] != [0, 1, 2, 3]
    assert assigned(second, "a") == {"a": [0, 1, 2, 3]}
    assert not first.lopsided()


def test_the_leader_sees_when_streams_have_become_uneven() -> None:
    weights = [0] * 8
    assignor = assignor_of(weights)
    assigned(assignor, "a", "b")
    assert not assignor.lopsided()
    weights[:] = [100, 0, 100, 0, 100, 0, 100, 0]
    uneven = assignor.lopsided()
    weights[:] = [50] * 8
    assert uneven != assignor.lopsided() or not uneven
    assignor.lead_no_more()
    assert not assignor.lopsided()


def test_a_leader_that_knows_no_stream_yet_goes_by_what_the_others_know() -> None:
    assignor = assignor_of([0] * 4)
    known = msgspec.json.encode(Claim([], 0, [90, 30, 30, 30]))
    members = {"new": assignor.metadata({"t"}), "old": assignor.metadata({"t"})}
    members["old"].user_data = known
    shares = {name: [p.partition for p in said.partitions()] for name, said in assignor.assign(None, members).items()}
    assert [0] in shares.values()


def test_an_error_in_a_callback_is_handed_on_and_not_swallowed() -> None:
    def broken(_: set[int]) -> None:
        raise ValueError("in a callback")

    heard: list[BaseException] = []
    Listener(broken, heard.append).on_partitions_assigned([TopicPartition("t", 0)])
    assert [str(e) for e in heard] == ["in a callback"]


# on a broker --------------------------------------------------------------------------------------------------------

kafka = pytest.mark.kafka


@kafka
async def test_members_say_who_holds_what_and_a_join_and_a_leave_settle(open_bus: Open) -> None:
    bus, other = await open_bus(partitions=4), await open_bus(partitions=4)
    await bus.create([bare("in")])
    assert await bus.members("svc") == {}
    for p in range(4):
        await bus.publish(entries(1, partition=p))
    async with working(bus) as first:
        before = await leases(first, 4)
        async with working(other) as second:
            moved = await leases(second, 2)
            assert sorted(len(ps) for ps in (await bus.members("svc")).values()) == [2, 2]
            assert sum(lease.lost.is_set() for lease in before) == 2, "those who stay keep what they hold"
        back = await leases(first, 2)
        assert {lease.partition for lease in back} == {lease.partition for lease in moved}
    assert await bus.members("svc") == {}


@kafka
async def test_two_services_of_one_process_each_have_all_partitions(bus: Kafka) -> None:
    await bus.publish(entries(1) + entries(1, partition=1))
    async with working(bus, "one") as one, working(bus, "two") as two:
        for member in (one, two):
            assert [lease.partition for lease in await leases(member, 2)] == [0, 1]


@kafka
async def test_deployments_with_different_prefixes_do_not_meet(bus: Kafka, open_bus: Open, prefix: str) -> None:
    other = await open_bus(prefix=prefix + "b.")
    await other.create([bare("in")])
    await bus.publish(entries(1))
    assert await other.topics() == {"in": 2}
    assert (await other.span("in", 0)).end == 0


@kafka
async def test_a_group_held_by_a_foreign_program_is_named(bus: Kafka) -> None:
    group = bus.names.group("svc")
    foreign = AIOKafkaConsumer(bus.names.topic("in"), bootstrap_servers=bus.bootstrap, group_id=group)
    await foreign.start()
    try:
        with pytest.raises(Unreachable, match="used by another program") as e:
            async with working(bus):
                pass
        assert group in e.value.hop
    finally:
        await foreign.stop()


@kafka
async def test_a_missing_topic_is_named_with_the_command_that_makes_it(bus: Kafka) -> None:
    with pytest.raises(Unreachable, match=r"nowhere.*topics create"):
        async with working(bus, topics=["in", "nowhere"]):
            pass
    with pytest.raises(Unreachable, match="topics create"):
        await bus.read("nowhere", 0, 0, max_records=1, max_bytes=1)


@kafka
async def test_topics_with_another_number_of_partitions_are_refused_and_named(bus: Kafka, open_bus: Open) -> None:
    other = await open_bus(partitions=3)
    with pytest.raises(Misconfigured, match="in has 2"):
        await other.create([bare("in")])
    with pytest.raises(Unreachable, match="2 partitions"):
        async with working(other):
            pass


@kafka
async def test_a_deployments_own_topics_are_checked_when_it_is_opened(bus: Kafka, open_bus: Open) -> None:
    await bus.create([bare("windows")])
    with pytest.raises(Misconfigured, match="windows has 2"):
        await open_bus(partitions=4)


@kafka
async def test_who_names_no_number_of_partitions_takes_that_of_the_topics_there_are(open_bus: Open) -> None:
    assert (await open_bus(partitions=None)).partitions == 16, "a new deployment's"
    three = await open_bus(partitions=3)
    await three.create([bare("windows"), bare("captions")])
    assert (await open_bus(partitions=None)).partitions == 3


def test_topics_that_do_not_agree_on_their_partitions_are_refused_whoever_asks() -> None:
    assert agreed({}, None) == 16
    assert agreed({}, 5) == 5
    assert agreed({"windows": 4, "captions": 4}, None) == 4
    for wanted in (None, 4):
        with pytest.raises(Misconfigured, match="captions has 3"):
            agreed({"windows": 4, "captions": 3, "events": 4}, wanted)


@kafka
async def test_creating_again_changes_nothing_and_two_at_once_agree(bus: Kafka, open_bus: Open) -> None:
    other = await open_bus()
    await asyncio.gather(bus.create([bare("new"), bare("in")]), other.create([bare("new"), bare("in")]))
    assert (await bus.topics())["new"] == 2


@kafka
async def test_spreads_follow_the_streams_when_they_come_later(open_bus: Open) -> None:
    bus, other = await open_bus(partitions=4), await open_bus(partitions=4)
    await bus.create([bare("in")])
    for p in range(4):
        await bus.publish(entries(1, partition=p))
    weights = [0] * 4
    async with (
        bus.join("svc", ["in"], weights=lambda: weights, hand_over_s=1.0),
        other.join("svc", ["in"], weights=lambda: weights, hand_over_s=1.0),  # nobody works here, and so lets go
    ):

        async def even() -> bool:
            loads = [sum(weights[p] for p in ps) for ps in (await bus.members("svc")).values()]
            return len(loads) == 2 and max(loads) - min(loads) <= max(weights)  # of three, one has two

        held = max((await bus.members("svc")).values(), key=len)
        for p in held:  # all the streams there are come to one of the two
            weights[p] = 100
        await eventually(even)
