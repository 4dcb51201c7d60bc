"""Who is alive, who has stopped, who is gone; and what a process may believe of itself after a pause."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.bus.embedded.presence import Alive, Presence

SESSION_S = 10.0


class Boot:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.pause_s: list[float] = []
        """How long the process is stopped right after it has read the clock, call by call."""

    def __call__(self) -> float:
        now_s = self.now_s
        if self.pause_s:
            self.now_s += self.pause_s.pop(0)
        return now_s


@pytest.fixture
def boot() -> Boot:
    return Boot()


@pytest.fixture
def presence(tmp_path: Path, boot: Boot) -> Iterator[Presence]:
    presence = Presence(Alive.open(tmp_path / "alive"), session_s=SESSION_S, boot=boot)
    presence.enter(1)
    yield presence
    presence.close()


def test_fresh_lasts_a_session_from_the_last_heartbeat(presence: Presence, boot: Boot) -> None:
    boot.now_s += SESSION_S / 2
    assert presence.beat()
    boot.now_s += SESSION_S - 0.1
    assert presence.fresh()
    boot.now_s += 0.2
    assert not presence.fresh()


def test_a_heartbeat_that_comes_too_late_does_not_make_fresh_again(presence: Presence, boot: Boot) -> None:
    boot.now_s += SESSION_S + 1
    assert not presence.beat()
    assert presence.standing(1) == "stale"
    presence.revived(presence.beat_again())
    assert presence.fresh()
    assert presence.standing(1) == "alive"


@pytest.mark.parametrize("looks", range(3))
def test_stopped_in_the_midst_of_a_heartbeat_we_do_not_believe_it(presence: Presence, boot: Boot, looks: int) -> None:
    """Somebody may have taken over meanwhile, by the heartbeat before; wherever we were stopped."""
    boot.now_s += SESSION_S - 1
    boot.pause_s = [0.0] * looks + [2 * SESSION_S]
    presence.beat()
    assert not presence.fresh()


def test_nobody_is_fresh_before_it_has_entered(tmp_path: Path, boot: Boot) -> None:
    presence = Presence(Alive.open(tmp_path / "alive"), session_s=SESSION_S, boot=boot)
    assert presence.beat()
    assert not presence.fresh()
    presence.close()


def test_an_id_nobody_has_is_gone(presence: Presence) -> None:
    assert presence.standing(2) == "gone"


def test_two_buses_of_one_process_see_each_other_and_one_leaving_leaves_the_other(
    presence: Presence, tmp_path: Path, boot: Boot
) -> None:
    other = Presence(Alive.open(tmp_path / "alive"), session_s=SESSION_S, boot=boot)
    other.enter(2)
    assert (presence.standing(2), other.standing(1)) == ("alive", "alive")
    other.close()
    assert presence.standing(2) == "gone"
    assert _seen_from_outside(tmp_path / "alive", 1) == "alive"
    assert _seen_from_outside(tmp_path / "alive", 2) == "gone"


def _seen_from_outside(path: Path, process: int) -> str:
    code = (
        "from pathlib import Path; from streamproc.bus.embedded.presence import *;"
        f"print(Alive.open(Path({str(path)!r})).standing({process}, 100.0, session_s={SESSION_S}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_process_that_dies_is_gone_at_once(tmp_path: Path, presence: Presence) -> None:
    code = (
        "import os; from pathlib import Path; from streamproc.bus.embedded.presence import *;"
        f"Alive.open(Path({str(tmp_path / 'alive')!r})).enter(3, boot_s() + 10**6); print('in', flush=True); os.read(0, 1)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"in\n"
        assert presence.standing(3) == "alive"
        child.kill()
        child.wait()
        assert presence.standing(3) == "gone"


def test_closing_the_last_user_closes_the_file(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/fd"))
    one, two = Alive.open(tmp_path / "alive"), Alive.open(tmp_path / "alive")
    assert one is two
    one.close()
    assert set(os.listdir("/dev/fd")) - before
    two.close()
    assert set(os.listdir("/dev/fd")) == before
