"""What we use of aiokafka's insides is still there, and still means what it did. If one of these fails after an update of
aiokafka, `insides.py` has to be looked at before anything else."""

from __future__ import annotations

import ast
import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, errors
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance, GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.producer import sender
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest

from streamproc.bus.kafka import Kafka
from streamproc.bus.kafka.insides import EARLIEST, LATEST, Batches, Client, TopicPartition, now_s, tune
from tests.bus.kafka.world import PATIENCE_S, entries, landing, leases, working

ROOM = Path(inspect.getfile(Client)).parent


def parameters(what: Any) -> list[str]:
    return [name for name in inspect.signature(what).parameters if name != "self"]


def test_only_insides_reaches_into_aiokafka() -> None:
    """What others import of it is what it exports and documents; what its clients are made of, `connections` knows too."""
    public = {"aiokafka", "aiokafka.abc", "aiokafka.admin", "aiokafka.errors"}
    for file in ROOM.glob("*.py"):
        if file.name == "insides.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiokafka"):
                assert node.module in public, f"{file.name} imports {node.module}"


def test_signatures_are_as_they_were() -> None:
    assert parameters(FetchRequest) == [
        "max_wait_time",
        "min_bytes",
        "max_bytes",
        "isolation_level",
        "topics",
        "rack_id",
    ]
    assert parameters(OffsetRequest) == ["replica_id", "isolation_level", "topics"]
    assert parameters(OffsetFetchRequest) == ["consumer_group", "partitions"]
    assert parameters(AIOKafkaClient.send) == ["node_id", "request", "group"]
    assert parameters(AIOKafkaClient.coordinator_lookup) == ["coordinator_type", "coordinator_key"]
    assert parameters(PartitionRecords) == [
        "tp", "records", "aborted_transactions", "fetch_offset", "key_deserializer", "value_deserializer", "check_crcs",
        "isolation_level",
    ]  # fmt: skip
    assert parameters(PartitionRecords._consumer_record) == ["tp", "record"]
    assert parameters(GroupCoordinator._do_rejoin_group) == ["subscription"]
    assert parameters(GroupCoordinator._do_heartbeat) == []
    assert (READ_UNCOMMITTED, READ_COMMITTED) == (0, 1)
    assert (LATEST, EARLIEST) == (-1, -2)


def test_names_we_reach_for_are_there() -> None:
    for owner, names in {
        AIOKafkaClient: ["bootstrap", "force_metadata_update", "add_topic", "fetch_all_metadata", "hosts"],
        GroupCoordinator: ["check_errors", "request_rejoin", "close"],
        SubscriptionState: ["register_fetch_waiters", "subscribe", "wait_for_assignment", "reassignment_in_progress"],
    }.items():
        assert [name for name in names if not hasattr(owner, name)] == []
    assert "generation" in inspect.getsource(GroupCoordinator.__init__)
    for source, names in {
        inspect.getsource(GroupCoordinator.__init__): ["self.coordinator_id", "self.member_id", "_rejoin_needed_fut",
                                                       "_coordination_task", "_group_subscription"],
        inspect.getsource(CoordinatorGroupRebalance): ["_rejoin_needed_fut = create_future()"],
        inspect.getsource(AIOKafkaProducer.__init__): ["self._sender", "self.client", "self._closed"],
        inspect.getsource(AIOKafkaClient.__init__): ["self._conns", "self._sync_task", "self._md_update_fut"],
        inspect.getsource(AIOKafkaClient._get_conn): ["conn_id = (node_id, group)", "conn.connected()"],
        inspect.getsource(AIOKafkaConnection): ["self._writer", "self._protocol", "return self._closed_fut"],
    }.items():  # fmt: skip
        assert [name for name in names if name not in source] == []
    assert isinstance(sender.Sender.sender_task, property)
    assert parameters(AIOKafkaClient._get_conn) == ["node_id", "group", "no_hint"]
    assert parameters(sender.Sender._fail_all) == ["task"]


def test_the_backoff_between_transactions_is_still_read_from_where_it_is_set() -> None:
    tune()
    assert sender.BACKOFF_OVERRIDE == 0.002
    assert "return BACKOFF_OVERRIDE" in inspect.getsource(sender.AddPartitionsToTxnHandler)


def test_the_clock_of_heartbeats_only_goes_on() -> None:
    first = now_s()
    assert now_s() >= first


class Answers:
    """Stands in for aiokafka's client: a coordinator that gives these answers, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def coordinator_lookup(self, kind: CoordinationType, key: str) -> int:
        return 0

    async def send(self, node: int, request: Any, **_: Any) -> Any:
        return self.answers.pop(0)

    async def force_metadata_update(self) -> bool:
        return True


def offsets(code: int, *partitions: tuple[int, int, str, int]) -> Any:
    response = OffsetFetchRequest("g", None)._CLASSES[-1].RESPONSE_TYPE
    return response(0, [("t", list(partitions))] if partitions else [], code)


def scripted(*answers: Any) -> Client:
    client = Client.__new__(Client)
    client.inner, client._within_s = Answers(*answers), 5
    return client


async def test_nothing_committed_and_an_error_are_two_answers() -> None:
    """aiokafka's own call drops the error of the whole and answers {}, which reads as 'start from 0'."""
    assert await scripted(offsets(0, (0, -1, "", 0))).committed("g", {"t": [0]}) == {}
    denied = errors.GroupAuthorizationFailedError.errno
    with pytest.raises(errors.GroupAuthorizationFailedError):
        await scripted(offsets(denied)).committed("g", {"t": [0]})
    with pytest.raises(errors.GroupAuthorizationFailedError):
        await scripted(offsets(0, (0, -1, "", denied))).committed("g", {"t": [0]})


async def test_an_error_that_passes_is_asked_again_and_not_taken_for_an_answer() -> None:
    loading = errors.GroupLoadInProgressError.errno
    moved = errors.NotCoordinatorForGroupError.errno
    client = scripted(offsets(loading), offsets(moved), offsets(0, (0, 42, "", 0)))
    assert await client.committed("g", {"t": [0]}) == {TopicPartition("t", 0): 42}


@pytest.mark.kafka
async def test_a_closed_client_opens_nothing_more_and_keeps_nobody_waiting(bus: Kafka) -> None:
    """Whatever was under way would open it again, or wait for ever for metadata that nobody brings."""
    client = Client(bus.bootstrap, {}, name="test", request_s=5)
    await client.open()
    places = {TopicPartition(bus.names.topic("in"), 0): LATEST}
    await client.offsets(places)
    under_way = [asyncio.ensure_future(client.offsets(places)) for _ in range(20)]
    waiting = asyncio.ensure_future(client.refresh())
    await client.close()
    async with asyncio.timeout(PATIENCE_S):
        ended = await asyncio.gather(*under_way, return_exceptions=True)
        await waiting
    assert all(isinstance(end, dict | errors.KafkaError) for end in ended), ended
    assert not any(conn.connected() for conn in client.inner._conns.values())
    with pytest.raises(errors.KafkaError, match="closed"):
        await client.offsets(places)


@pytest.mark.kafka
async def test_batches_know_their_end_without_being_decoded(bus: Kafka) -> None:
    await bus.publish(entries(7))
    place = TopicPartition(bus.names.topic("in"), 0)
    found = await bus.client.fetch_one(place, 3, size=2**20, lane="test")
    assert isinstance(found.records, Batches)
    assert found.records.end == 8, "seven records and the marker of the transaction"
    assert [s.offset for s in found.records.named("in")] == [3, 4, 5, 6]
    assert found.records.next_fetch_offset == found.records.end


@pytest.mark.kafka
async def test_a_settled_group_has_said_so_just_now(bus: Kafka) -> None:
    await bus.publish(entries(1))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        asked = now_s()
        await member.settled()
        assert member._group is not None
        assert member._group.beat_s >= asked
        await lease.land(landing(lease, done=1))
