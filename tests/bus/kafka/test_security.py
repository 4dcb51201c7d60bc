"""TLS and logins, against a broker that demands both; and what is said to those it turns away."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.bus.kafka import Kafka, KafkaSecurity
from streamproc.bus.kafka.security import Mechanism
from streamproc.errors import Misconfigured, Unreachable
from tests import brokers
from tests.bus.at_work import has_done
from tests.bus.kafka.conftest import Open
from tests.bus.kafka.world import bare, entries, fetched, landing, leases, working

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def strict(own_brokers: None) -> Iterator[brokers.Brokers]:
    """A broker that clients reach by TLS and with a login only."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make certificates with. Run: apt-get install -y openssl")
    with brokers.start(tls=True, sasl=True) as one:
        yield one


def login(strict: brokers.Brokers, mechanism: Mechanism = "PLAIN", password: str = brokers.PASSWORD) -> KafkaSecurity:
    return KafkaSecurity(
        protocol="SASL_SSL", mechanism=mechanism, username=brokers.USER, password=password, cafile=strict.ca
    )


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_everything_works_by_tls_and_with_a_login(
    strict: brokers.Brokers, open_bus: Open, mechanism: Mechanism
) -> None:
    """Every connection has to log in: metadata, topics, producers, the group, and the reading ahead."""
    bus = await open_bus(strict.bootstrap, security=login(strict, mechanism))
    await bus.create([bare("in"), bare("out")])
    await bus.publish(entries(2))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        assert [s.value for s in await fetched(lease, 2)] == [b"0", b"1"]
        await lease.land(landing(lease, entries(1, topic="out"), done=2))
    await has_done(bus, {("in", 0): 2})


@pytest.fixture
def authority(strict: brokers.Brokers, tmp_path: Path) -> bytes:
    """Somebody who signed nothing here."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=stranger -keyout key -out cert"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True, timeout=30)
    return (tmp_path / "cert").read_bytes()


async def refused(bootstrap: str, security: KafkaSecurity) -> Unreachable:
    with pytest.raises(Unreachable) as e:
        await Kafka.open(bootstrap, security=security)
    return e.value


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_said_to_be_wrong(strict: brokers.Brokers, mechanism: Mechanism) -> None:
    said = await refused(strict.bootstrap, login(strict, mechanism, password="hunter2"))
    assert strict.bootstrap in said.hop
    assert "KAFKA_SASL_PASSWORD" in said.remedy
    assert "hunter2" not in str(said)


async def test_a_broker_signed_by_somebody_unknown_is_not_trusted(
    strict: brokers.Brokers, authority: bytes, tmp_path: Path
) -> None:
    stranger = tmp_path / "ca.pem"
    stranger.write_bytes(authority)
    security = KafkaSecurity(
        protocol="SASL_SSL", mechanism="PLAIN", username=brokers.USER, password=brokers.PASSWORD, cafile=stranger
    )
    assert "KAFKA_SSL_CAFILE" in (await refused(strict.bootstrap, security)).remedy


async def test_who_speaks_in_the_clear_to_tls_is_told_where_to_look(strict: brokers.Brokers) -> None:
    said = await refused(strict.bootstrap, KafkaSecurity())
    assert strict.bootstrap in str(said)
    assert "KAFKA_SECURITY_PROTOCOL" in said.remedy


async def test_a_broker_that_is_not_there_is_named() -> None:
    said = await refused("127.0.0.1:1", KafkaSecurity())
    assert "127.0.0.1:1" in said.hop
    assert "Is the broker up" in said.remedy


def test_a_login_without_a_password_is_refused_before_anything_is_tried() -> None:
    with pytest.raises(Misconfigured, match="a password"):
        KafkaSecurity(protocol="SASL_SSL", mechanism="PLAIN", username="me")


def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"nobody\.pem"):
        KafkaSecurity(protocol="SSL", cafile=tmp_path / "nobody.pem").options()


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(
        KafkaSecurity(protocol="SASL_SSL", mechanism="PLAIN", username="me", password="hunter2")
    )
