"""Who gets what: an assignor for aiokafka's group coordinator. Partition p of every topic goes to one member.

Each member says, when it joins, what it holds and how many streams it knows of in each partition; the group's leader
spreads. aiokafka's own sticky assignor keeps its memory on the class, so two groups of one process would share it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka.abc import ConsumerRebalanceListener

from streamproc.bus.kafka.insides import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from streamproc.bus.spread import spread

log = logging.getLogger(__name__)


class Claim(msgspec.Struct, frozen=True):
    """What a member says when it joins."""

    held: list[int]
    since: int
    """The group's generation that gave it: an older claim is that of a member who slept through a rebalance."""
    weights: list[int]
    leaving: bool = False
    """It keeps what it holds and wants no more."""


class Assignor:
    """One per membership. aiokafka asks for the names and methods of its abstract assignor; it needs no class of its own."""

    name = "streamproc"

    def __init__(self, partitions: int, *, claim: Callable[[], Claim], weights: Callable[[], Sequence[int]]) -> None:
        self._partitions, self._claim, self._own = partitions, claim, weights
        self._given: tuple[dict[str, Claim], dict[str, list[int]]] | None = None
        """As leader: what everybody claimed and was given last."""

    def metadata(self, topics: Iterable[str]) -> Any:
        return ConsumerProtocolMemberMetadata(0, sorted(topics), msgspec.json.encode(self._claim()))

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002  # the coordinator passes it
        claims = {member: msgspec.json.decode(said.user_data, type=Claim) for member, said in members.items()}
        given = share(claims, self._weights(claims), self._partitions)
        self._given = claims, given
        log.info("group of %d: %s", len(members), given)
        return {
            member: ConsumerProtocolMemberAssignment(0, [(topic, given[member]) for topic in said.subscription], b"")
            for member, said in members.items()
        }

    def on_assignment(self, assignment: Any) -> None:
        """aiokafka tells; the listener hears it anyway."""

    def lead_no_more(self) -> None:
        self._given = None

    def lopsided(self) -> bool:
        """As leader: streams have come or gone so much since that another spread would be better."""
        if self._given is None:
            return False
        claims, given = self._given
        if any(claim.leaving for claim in claims.values()):
            return False
        return spread(given, self._weights(claims)) != given

    def _weights(self, claims: Mapping[str, Claim]) -> Sequence[int]:
        """The leader's own count; where it has just come and knows of no stream yet, the most that anybody knows."""
        own = self._own()
        if any(own):
            return own
        return [max(claim.weights[p] for claim in claims.values()) for p in range(self._partitions)]


def share(claims: Mapping[str, Claim], weights: Sequence[int], partitions: int) -> dict[str, list[int]]:
    """What each member gets. Of two who claim a partition the later one holds it; who leaves keeps, and gets no more."""
    held: dict[str, list[int]] = {member: [] for member in claims}
    owner: dict[int, str] = {}
    for member, claim in sorted(claims.items(), key=lambda c: (-c[1].since, c[0])):
        for p in claim.held:
            if p < partitions and p not in owner:
                owner[p] = member
                held[member].append(p)
    kept = {member: sorted(held[member]) for member, claim in claims.items() if claim.leaving}
    staying = {member: held[member] for member in claims if member not in kept}
    # The rest among those who stay, by its own numbers: what leavers keep is nobody's to weigh.
    rest = [p for p in range(partitions) if owner.get(p) not in kept]
    number = {p: i for i, p in enumerate(rest)}
    shares = spread({m: [number[p] for p in ps] for m, ps in staying.items()}, [weights[p] for p in rest])
    return kept | {member: [rest[i] for i in share] for member, share in shares.items()}


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """Hears what is given. aiokafka swallows what a listener raises, so errors go to `failed` instead."""

    def __init__(self, heard: Callable[[set[int]], None], failed: Callable[[BaseException], None]) -> None:
        self._heard, self._failed = heard, failed

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Nothing: work goes on until somebody else has it, and fencing makes that safe."""

    def on_partitions_assigned(self, assigned: Any) -> None:
        try:
            self._heard({place.partition for place in assigned})
        except Exception as e:  # noqa: BLE001  # handed on, to whoever waits for leases
            self._failed(e)
