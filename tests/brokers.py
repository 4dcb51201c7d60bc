"""Real brokers for tests, chaos and benches: started, stopped, killed; gone when the process that asked for them is gone.

Knows nothing of pytest. `deploy/kafka/cluster.py` does the work; here is only what a test needs around it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deploy.kafka.cluster import PASSWORD, USER, Cluster, Missing, needed

__all__ = ["PASSWORD", "USER", "Brokers", "missing", "shared", "start"]


def missing() -> str | None:
    """What this machine lacks to run brokers of its own, with the command that brings it; None where it lacks nothing."""
    try:
        needed()
    except Missing as e:
        return str(e)
    return None


class Brokers:
    """Running brokers, numbered from 0."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._guards: dict[int, subprocess.Popen[bytes]] = {}
        for node in cluster.nodes:
            self.start(node.id)

    @property
    def bootstrap(self) -> str:
        return self.cluster.bootstrap

    @property
    def ca(self) -> Path:
        return self.cluster.ca

    def start(self, i: int) -> None:
        """Start it and wait until it serves; of many, the first waits for none: without the others it cannot serve."""
        if not self._guards and len(self.cluster.nodes) > 1:
            self.cluster.start()
        else:
            self.cluster.start(i)
        for node in self.cluster.nodes:
            if node.pid is not None and node.id not in self._guards:
                self._guards[node.id] = _guard(node.pid)

    def kill(self, i: int) -> None:
        """kill -9."""
        self._unguard(i)
        self.cluster.kill(i)

    def stop(self, i: int) -> None:
        """SIGTERM, and wait for the end."""
        self._unguard(i)
        self.cluster.stop(i)

    async def restart(self, i: int) -> None:
        """SIGTERM and start again, off the loop: what runs on it goes on meanwhile."""
        await asyncio.to_thread(self.stop, i)
        await asyncio.to_thread(self.start, i)

    def close(self) -> None:
        """The end of all of them, and of their data."""
        for i in range(len(self.cluster.nodes)):
            self.kill(i)
        shutil.rmtree(self.cluster.folder, ignore_errors=True)

    def __enter__(self) -> Brokers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unguard(self, i: int) -> None:
        if guard := self._guards.pop(i, None):
            guard.kill()
            guard.wait()
            assert guard.stdin is not None
            guard.stdin.close()


def _guard(pid: int) -> subprocess.Popen[bytes]:
    """Kills the process once ours is gone, however it went: then the pipe closes, and `cat` ends."""
    return subprocess.Popen(
        ["sh", "-c", 'cat >/dev/null; kill -9 "$1" 2>/dev/null', "sh", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


_shared: list[Brokers] = []


def shared() -> str:
    """The bootstrap of one broker for all tests of this process: that of KAFKA_BOOTSTRAP_SERVERS, else one of our own."""
    if named := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return named
    if not _shared:
        _shared.append(start())
        atexit.register(_shared[0].close)
    return _shared[0].bootstrap


def start(n: int = 1, *, tls: bool = False, sasl: bool = False, settings: Mapping[str, str] | None = None) -> Brokers:
    """n fresh brokers that serve (three replicate: RF 3, min ISR 2); `settings` are Kafka's own, before ours."""
    folder = Path(tempfile.mkdtemp(prefix="streamproc-kafka-", dir=os.environ.get("STREAMPROC_TEST_FOLDER")))
    return Brokers(Cluster.create(folder, brokers=n, tls=tls, sasl=sasl, settings=settings))
