"""The short form of the chaos run: minutes and hours of it are a command of their own (see the package)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests import brokers


def storm(*options: str) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.chaos", "--json", "--bounded", "150", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout, done.stderr[-4000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    assert found["ok"], (found, done.stderr[-4000:])
    assert done.returncode == 0
    return found


@pytest.mark.timeout(240)
def test_kills_on_the_embedded_bus_lose_and_double_nothing() -> None:
    found = storm("--bus", "embedded", "--inputs", "3000", "--kills", "6", "--seed", "11")
    assert found["repeated_landed"] == 0


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_kills_and_a_broker_restart_on_kafka_lose_and_double_nothing() -> None:
    if (why := brokers.missing()) and not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    found = storm("--bus", "kafka", "--inputs", "2000", "--kills", "3", "--seed", "12")
    assert found["repeated_landed"] == 0
