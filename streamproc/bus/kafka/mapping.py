"""aiokafka's errors in our words: which hop, what is wrong, what to do. Every class of theirs stands here; a test counts."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import errors as e

from streamproc.errors import Corrupt, Fenced, Misconfigured, StreamprocError, Throttled, TooLarge, Unreachable

ELSEWHERE: dict[str, tuple[type[BaseException], ...]] = {
    "Is the broker up, can the address it advertises be reached from here, does it speak KAFKA_SECURITY_PROTOCOL? `streamproc doctor` looks.": (
        ConnectionError, TimeoutError, OSError, e.KafkaConnectionError, e.NoBrokersAvailable, e.NodeNotReadyError,
        e.KafkaUnavailableError, e.KafkaTimeoutError, e.RequestTimedOutError, e.BrokerNotAvailableError, e.Cancelled,
        e.MetadataEmptyBrokerList, e.CorrelationIdError, e.TooManyInFlightRequests, e.StaleMetadata, e.ListenerNotFound,
    ),
    "A broker is starting, stopping or handing over; it passes. If it lasts, look at the brokers' logs.": (
        e.LeaderNotAvailableError, e.NotLeaderForPartitionError, e.ReplicaNotAvailableError, e.StaleControllerEpochError,
        e.StaleLeaderEpochCodeError, e.GroupLoadInProgressError, e.GroupCoordinatorNotAvailableError, e.NotControllerError,
        e.NotCoordinatorForGroupError, e.ConcurrentTransactions, e.TransactionCoordinatorFenced, e.ReassignmentInProgress,
        e.KafkaStorageError, e.LogDirNotFound, e.FetchSessionIdNotFound, e.InvalidFetchSessionEpoch, e.UnknownError,
        e.RebalanceInProgressError, e.IllegalGenerationError, e.UnknownMemberIdError, e.MemberIdRequired,
    ),
    "Too few replicas are in sync: bring the missing brokers back (min.insync.replicas says how many it takes).": (
        e.NotEnoughReplicasError, e.NotEnoughReplicasAfterAppendError,
    ),
    "Check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD.": (
        e.AuthenticationFailedError, e.SaslAuthenticationFailed, e.AuthenticationMethodNotSupported,
        e.UnsupportedSaslMechanismError, e.IllegalSaslStateError, e.SecurityDisabled, e.DelegationTokenAuthDisabled,
        e.DelegationTokenNotFound, e.DelegationTokenOwnerMismatch, e.DelegationTokenRequestNotAllowed,
        e.DelegationTokenAuthorizationFailed, e.DelegationTokenExpired, e.InvalidPrincipalType,
    ),
    "Check KAFKA_SSL_CAFILE: it has to hold whoever signed the broker's certificate, and the broker's name has to be in it.": (
        ssl.SSLError,
    ),
    "Give this user the right to it (ACLs: read and write topics, groups, transactional ids with the deployment's prefix).": (
        e.TopicAuthorizationFailedError, e.GroupAuthorizationFailedError, e.ClusterAuthorizationFailedError,
        e.TransactionalIdAuthorizationFailed,
    ),
    "Run `streamproc topics create`.": (e.UnknownTopicOrPartitionError,),
    "The group is used by another program, or by another version of this one: stop that, or set another topic prefix.": (
        e.InconsistentGroupProtocolError, e.NonEmptyGroup, e.GroupIdNotFound,
    ),
    "streamproc needs Kafka 2.5 or newer; brokers 4.2 are what it is tested with.": (
        e.UnrecognizedBrokerVersion, e.IncompatibleBrokerVersion, e.UnsupportedVersionError,
        e.UnsupportedForMessageFormatError, e.UnsupportedCodecError,
    ),
}  # fmt: skip
"""Remedy → what it helps against: hops that do not answer, or turn us away."""

PASSES = "It may pass; if it lasts, look at the brokers' logs."

UNREACHABLE = {error: remedy for remedy, classes in ELSEWHERE.items() for error in classes}

REFUSED: dict[type[BaseException], type[StreamprocError]] = {
    e.MessageSizeTooLargeError: TooLarge,
    e.RecordListTooLargeError: TooLarge,
    e.RecordTooLargeError: TooLarge,
    e.CorruptRecordException: Corrupt,
    e.OffsetOutOfRangeError: Corrupt,
    e.NoOffsetForPartitionError: Corrupt,
    e.QuotaViolationError: Throttled,
    # Somebody else goes by our transactional id, or the broker has forgotten our producer.
    e.ProducerFenced: Fenced,
    e.InvalidProducerEpoch: Fenced,
    e.InvalidProducerIdMapping: Fenced,
    e.UnknownProducerId: Fenced,
    e.InvalidTxnState: Fenced,
    e.OutOfOrderSequenceNumber: Fenced,
    e.DuplicateSequenceNumber: Fenced,
    e.OperationNotAttempted: Fenced,
    e.ProducerClosed: Fenced,
    # What the broker does not allow to be asked for.
    e.InvalidTopicError: Misconfigured,
    e.TopicAlreadyExistsError: Misconfigured,
    e.InvalidPartitionsError: Misconfigured,
    e.InvalidReplicationFactorError: Misconfigured,
    e.InvalidReplicationAssignmentError: Misconfigured,
    e.InvalidConfigurationError: Misconfigured,
    e.PolicyViolationError: Misconfigured,
    e.InvalidGroupIdError: Misconfigured,
    e.InvalidSessionTimeoutError: Misconfigured,
    e.InvalidTransactionTimeout: Misconfigured,
    e.InvalidTimestampError: Misconfigured,
    e.KafkaConfigurationError: Misconfigured,
    e.IllegalArgumentError: Misconfigured,
}

OURS: frozenset[type[BaseException]] = frozenset({
    e.KafkaError, e.KafkaProtocolError, e.BrokerResponseError, e.NoError, e.IllegalStateError, e.IllegalOperation,
    e.ConsumerStoppedError, e.CommitFailedError, e.InvalidFetchRequestError, e.OffsetMetadataTooLargeError,
    e.InvalidRequiredAcksError, e.InvalidCommitOffsetSizeError, e.InvalidRequestError,
})  # fmt: skip
"""Roots, and what only a mistake in this package could bring about: left as they are, to be seen with their traceback."""


def mapped(error: BaseException, hop: str) -> BaseException:
    """The error in our words, or itself where it is a mistake of ours."""
    if (
        type(error) is e.KafkaError
    ):  # aiokafka wraps what it did not foresee, connections lost in the midst of things too
        if error.__cause__ is None:
            return Unreachable(hop, _text(error), remedy=PASSES)
        found = mapped(error.__cause__, hop)
        return error if found is error.__cause__ else found
    for cls in type(error).__mro__:
        if cls in OURS:
            break
        if remedy := UNREACHABLE.get(cls):
            return Unreachable(hop, _text(error), remedy=remedy)
        if ours := REFUSED.get(cls):
            return ours(f"{hop}: {_text(error)}")
    if isinstance(error, e.KafkaError) and error.retriable:
        return Unreachable(hop, _text(error), remedy=PASSES)
    return error


def _text(error: BaseException) -> str:
    said = str(error).removeprefix(f"{type(error).__name__}").lstrip(": ")
    name = type(error).__name__.removesuffix("Error").removesuffix("Exception")
    return f"{name}: {said}" if said else str(getattr(error, "description", "") or name).rstrip(".")


@contextmanager
def at(hop: str) -> Iterator[None]:
    """What aiokafka raises in here is raised in our words, naming the hop."""
    try:
        yield
    except (e.KafkaError, e.IllegalOperation, e.ConsumerStoppedError, OSError, TimeoutError) as error:
        ours = mapped(error, hop)
        if ours is error:
            raise
        raise ours from error
