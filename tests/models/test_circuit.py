"""When a replica that was out is asked again. Times are arguments, so an outage of a day takes no time."""

from __future__ import annotations

import random

import pytest

from streamproc.models.circuit import Circuit

RECOVERS_S = 30.0
"""From the end of an outage to progress; less what a call takes."""


@pytest.mark.parametrize("outage_s", [0.5, 5.0, 60.0, 600.0, 86_400.0])
@pytest.mark.parametrize("seed", range(20))
def test_after_an_outage_of_any_length_somebody_looks_again_in_less_than_half_a_minute(
    outage_s: float, seed: int
) -> None:
    circuit, now, looks = Circuit(random.Random(seed)), 0.0, 0
    circuit.failed(now, started=now, why="refused", at_once=True)
    while (now := circuit.until) < outage_s:
        assert circuit.lets(now)
        circuit.started()
        circuit.failed(now, started=now, why="refused", at_once=True)
        looks += 1
    assert now - outage_s < RECOVERS_S - 2
    assert looks <= 6 + outage_s / 20  # and an endpoint that is out is left alone
