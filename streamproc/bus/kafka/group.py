"""Who gets what: an assignor for aiokafka's group coordinator. Partition p of every topic goes to one member.

Each member says, when it joins, what it holds and how many streams it knows of in each partition; the group's leader
spreads. A partition that is to move stays with its owner in that generation, and the owner is told that it is wanted. Once
it has let go it joins anew, and the next generation gives the partition away. So a hand-over never holds up a rebalance,
and no other partition waits for it. aiokafka's own sticky assignor keeps its memory on the class, so two groups of one process would share it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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
    parting: list[int] = []
    """Of what it holds: what it was told is wanted, and is about to let go of."""


class Shares(NamedTuple):
    """By member."""

    target: dict[str, list[int]]
    """What it should have in the end."""
    given: dict[str, list[int]]
    """What it has in this generation: what others still hold is not among it, what it has to hand over is."""
    wanted: dict[str, list[int]]
    """Of what is given, what somebody else should have."""


class Assignor:
    """One per membership. aiokafka asks for the names and methods of its abstract assignor; it needs no class of its own."""

    name = "streamproc"

    def __init__(self, partitions: int, *, claim: Callable[[], Claim], weights: Callable[[], Sequence[int]]) -> None:
        self._partitions, self._claim, self._own = partitions, claim, weights
        self._shared: tuple[dict[str, Claim], Shares] | None = None
        """As leader: what everybody claimed and was given last."""
        self.wanted: set[int] = set()
        """As member: of what was given last, what is to be handed over."""

    def metadata(self, topics: Iterable[str]) -> Any:
        return ConsumerProtocolMemberMetadata(0, sorted(topics), msgspec.json.encode(self._claim()))

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002  # the coordinator passes it
        claims = {member: msgspec.json.decode(said.user_data, type=Claim) for member, said in members.items()}
        shares = share(claims, self._weights(claims), self._partitions)
        self._shared = claims, shares
        log.debug("group of %d: %s, wanted %s", len(members), shares.given, shares.wanted)
        return {
            member: ConsumerProtocolMemberAssignment(
                0,
                [(topic, shares.given[member]) for topic in said.subscription],
                msgspec.json.encode(shares.wanted[member]),
            )
            for member, said in members.items()
        }

    def on_assignment(self, assignment: Any) -> None:
        """aiokafka tells before it tells the listener, who hears of the partitions."""
        self.wanted = set(msgspec.json.decode(assignment.user_data or b"[]", type=list[int]))

    def lead_no_more(self) -> None:
        self._shared = None

    def lopsided(self) -> bool:
        """As leader: streams have come or gone so much since that another spread would be better."""
        if self._shared is None:
            return False
        claims, shares = self._shared
        if any(claim.leaving for claim in claims.values()):
            return False
        return spread(shares.target, self._weights(claims)) != shares.target

    def _weights(self, claims: Mapping[str, Claim]) -> Sequence[int]:
        """The leader's own count; where it has just come and knows of no stream yet, the most that anybody knows."""
        own = self._own()
        if any(own):
            return own
        return [max(claim.weights[p] for claim in claims.values()) for p in range(self._partitions)]


def share(claims: Mapping[str, Claim], weights: Sequence[int], partitions: int) -> Shares:
    """Of two who claim a partition the later one holds it; who leaves keeps, and gets no more."""
    owner: dict[int, str] = {}
    for member, claim in sorted(claims.items(), key=lambda c: (-c[1].since, c[0])):
        for p in claim.held:
            if p < partitions:
                owner.setdefault(p, member)
    target = _target(claims, owner, weights, partitions)
    shares = Shares(target, {member: [] for member in claims}, {member: [] for member in claims})
    for member, share_ in target.items():
        for p in share_:
            holder = owner.get(p, member)
            shares.given[holder].append(p)
            if holder != member:
                shares.wanted[holder].append(p)
    return shares


def _target(
    claims: Mapping[str, Claim], owner: Mapping[int, str], weights: Sequence[int], partitions: int
) -> dict[str, list[int]]:
    kept = {member: sorted(p for p in owner if owner[p] == member) for member in claims if claims[member].leaving}
    # What somebody is about to let go of is free, whoever it is for: it is let go of even if that one has died meanwhile.
    staying = {
        member: [p for p in owner if owner[p] == member and p not in claims[member].parting]
        for member in claims
        if member not in kept
    }
    # The rest among those who stay, by its own numbers: what leavers keep is nobody's to weigh.
    rest = [p for p in range(partitions) if owner.get(p) not in kept]
    number = {p: i for i, p in enumerate(rest)}
    spread_ = spread({m: [number[p] for p in ps] for m, ps in staying.items()}, [weights[p] for p in rest])
    return kept | {member: [rest[i] for i in share_] for member, share_ in spread_.items()}


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """Hears what is given. aiokafka swallows what a listener raises, so errors go to `failed` instead."""

    def __init__(self, heard: Callable[[set[int]], None], failed: Callable[[BaseException], None]) -> None:
        self._heard, self._failed = heard, failed

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Nothing: aiokafka calls it before every rebalance, with all there is. Work goes on until the new shares are said."""

    def on_partitions_assigned(self, assigned: Any) -> None:
        try:
            self._heard({place.partition for place in assigned})
        except Exception as e:  # noqa: BLE001  # handed on, to whoever waits for leases
            self._failed(e)
