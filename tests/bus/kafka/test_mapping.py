"""aiokafka's errors, all of them, in our words; and no class of a newer version unnoticed."""

from __future__ import annotations

import inspect
import ssl

import pytest
from aiokafka import errors

from streamproc.bus.kafka.mapping import OURS, REFUSED, UNREACHABLE, at, mapped
from streamproc.errors import Corrupt, Fenced, Misconfigured, Retryable, Throttled, TooLarge, Unreachable

THEIRS = sorted(
    {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__},
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", THEIRS, ids=lambda cls: cls.__name__)
def test_every_error_of_theirs_has_exactly_one_place(cls: type[BaseException]) -> None:
    places = [cls in UNREACHABLE, cls in REFUSED, cls in OURS]
    assert sum(places) == 1, "a new version of aiokafka has an error that mapping.py does not know"


def test_no_place_is_kept_for_what_is_not_there() -> None:
    builtin = {ConnectionError, TimeoutError, OSError, ssl.SSLError}
    assert set(UNREACHABLE) | set(REFUSED) | OURS <= set(THEIRS) | builtin


@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        (errors.KafkaConnectionError("refused"), Unreachable, "Is the broker up"),
        (ConnectionRefusedError(111, "refused"), Unreachable, "Is the broker up"),
        (TimeoutError(), Unreachable, "Is the broker up"),
        (ssl.SSLCertVerificationError("self-signed certificate"), Unreachable, "KAFKA_SSL_CAFILE"),
        (errors.AuthenticationFailedError("no"), Unreachable, "KAFKA_SASL_PASSWORD"),
        (errors.TopicAuthorizationFailedError("windows"), Unreachable, "ACL"),
        (errors.UnknownTopicOrPartitionError("windows"), Unreachable, "streamproc topics create"),
        (errors.InconsistentGroupProtocolError(), Unreachable, "another program"),
        (errors.NotEnoughReplicasError(), Unreachable, "min.insync.replicas"),
        (errors.MessageSizeTooLargeError(), TooLarge, "the hop"),
        (errors.ProducerFenced(), Fenced, "the hop"),
        (errors.CorruptRecordException(), Corrupt, "the hop"),
        (errors.InvalidReplicationFactorError(), Misconfigured, "the hop"),
        (errors.QuotaViolationError(), Throttled, "the hop"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_is_wrong_is_said_with_the_hop_and_what_to_do(
    theirs: BaseException, ours: type[Exception], says: str
) -> None:
    found = mapped(theirs, "the hop")
    assert type(found) is ours
    assert "the hop" in str(found)
    assert says in str(found)


@pytest.mark.parametrize(
    "cls", [c for c in UNREACHABLE if issubclass(c, errors.KafkaError)], ids=lambda cls: cls.__name__
)
def test_what_may_pass_is_retryable(cls: type[errors.KafkaError]) -> None:
    assert isinstance(mapped(cls(), "hop"), Retryable)


def test_a_mistake_of_ours_keeps_its_own_face() -> None:
    with pytest.raises(errors.IllegalStateError), at("hop"):
        raise errors.IllegalStateError
    with pytest.raises(ValueError, match="mine"), at("hop"):
        raise ValueError("mine")


def test_what_aiokafka_wrapped_without_having_foreseen_it_is_mapped_by_its_cause() -> None:
    wrapped = errors.KafkaError("KafkaConnectionError('closed')")
    wrapped.__cause__ = errors.KafkaConnectionError("closed")
    assert isinstance(found := mapped(wrapped, "hop"), Unreachable)
    assert "Is the broker up" in found.remedy
    wrapped.__cause__ = AssertionError("a mistake")
    assert mapped(wrapped, "hop") is wrapped
    assert isinstance(mapped(errors.KafkaError("unheard of"), "hop"), Unreachable)


def test_the_cause_is_kept() -> None:
    with pytest.raises(Unreachable) as e, at("hop"):
        raise errors.KafkaConnectionError("gone")
    assert isinstance(e.value.__cause__, errors.KafkaConnectionError)
