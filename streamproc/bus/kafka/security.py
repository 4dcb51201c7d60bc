"""How a broker is spoken to: in the clear or by TLS, with or without a login. As aiokafka wants to hear it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from streamproc.errors import Misconfigured

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    cafile: Path | None = None
    """Who signed the broker's certificate; without it the system's authorities are asked."""

    def __post_init__(self) -> None:
        if self.protocol.startswith("SASL") and not (self.mechanism and self.username and self.password):
            raise Misconfigured(f"protocol {self.protocol} needs a mechanism, a username and a password")

    def options(self) -> dict[str, Any]:
        """Arguments of every aiokafka client."""
        said: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            try:
                said["ssl_context"] = ssl.create_default_context(cafile=self.cafile)
            except (OSError, ssl.SSLError) as e:
                raise Misconfigured(f"KAFKA_SSL_CAFILE {self.cafile}: {e}") from e
        if self.protocol.startswith("SASL"):
            said |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return said
