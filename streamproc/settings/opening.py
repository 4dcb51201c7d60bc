"""What the settings name, opened: the bus, and the store for claim checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.bus import claims
    from streamproc.bus.contract import Bus
    from streamproc.settings.options import Settings


class EmbeddedAt(NamedTuple):
    path: Path


class KafkaAt(NamedTuple):
    bootstrap: str


_SERVER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}")


def parse_bus(text: str) -> EmbeddedAt | KafkaAt:
    """Where a bus is: `embedded:PATH` or `kafka://host:port[,…]`."""
    kind, colon, where = text.partition(":")
    if kind == "embedded" and colon and where:
        return EmbeddedAt(Path(where).expanduser())
    if kind == "kafka" and where.startswith("//"):
        servers = where.removeprefix("//").rstrip("/")
        if "@" in servers:  # not shown: what stands before it is a password
            raise Misconfigured(
                "a bus names no user: give KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD in the environment"
            )
        if all(_SERVER.fullmatch(server) for server in servers.split(",")):
            return KafkaAt(servers)
    shown = f"bus '{text}'" if "@" not in text else "the bus"  # a password may stand before it
    raise Misconfigured(f"{shown} is neither embedded:PATH nor kafka://host:port[,host:port…]")


async def open_bus(settings: Settings) -> Bus:
    """The bus that the settings name, open. Only what it needs is imported: a laptop needs no Kafka client."""
    at = parse_bus(settings.bus)
    if isinstance(at, EmbeddedAt):
        from streamproc.bus import embedded

        return await embedded.Embedded.open(
            at.path,
            partitions=settings.partitions,
            prefix=settings.topic_prefix,
            session_s=settings.session_s,
            heartbeat_s=settings.embedded.heartbeat_s,
            retention_bytes=settings.embedded.retention_bytes,
        )
    from streamproc.bus import kafka

    said = settings.kafka
    return await kafka.Kafka.open(
        at.bootstrap,
        prefix=settings.topic_prefix,
        partitions=settings.partitions,
        replication=settings.replication,
        session_s=settings.session_s,
        security=kafka.KafkaSecurity(
            protocol=said.protocol,
            mechanism=said.mechanism,
            username=said.username,
            password=said.password.get_secret_value() if said.password else None,
            cafile=said.cafile,
        ),
    )


def open_claims(settings: Settings) -> claims.Claims:
    """Claim checks over the store that the settings name; without one, what is too large is rejected."""
    from streamproc.bus import claims

    said = settings.claims
    return claims.Claims(claims.open_store(said.store) if said.store else None, threshold_bytes=said.threshold_bytes)
