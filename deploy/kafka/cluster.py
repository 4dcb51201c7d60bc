"""A Kafka cluster in a folder of this machine: formatted, started, stopped, killed. broker.py is its command line.

Kafka itself comes from Maven Central into a cache (`.cache/kafka`, or where STREAMPROC_KAFKA_CACHE points), once. Brokers
run in KRaft mode, each its own controller, on 127.0.0.1 and free ports; what they are is written into their folder, so
that another process can load it and go on. This is no production setup; README.md beside it says what one needs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
COPY_JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
READY_S = 90.0
MAX_BYTES = 20 * 2**20
"""Of a message, and so of a batch: above the largest topic of ours (16 MiB) with room for its envelope."""

USER, PASSWORD = "streamproc", "streamproc-local"
"""Who may enter with --sasl: a local broker has no secrets."""


class Missing(Exception):
    """Something this machine does not have, and the command that brings it."""


def cache() -> Path:
    return Path(os.environ.get("STREAMPROC_KAFKA_CACHE") or HERE.parent.parent / ".cache" / "kafka")


def version() -> str:
    found = ElementTree.parse(POM).find(".//{*}dependency/{*}version")
    if found is None or not found.text:
        raise ValueError(f"{POM} names no version")
    return found.text


def needed(*, tls: bool = False) -> None:
    """Says what is missing, with the command to run, before anything is tried."""
    if not shutil.which("java"):
        raise Missing(
            "no Java ≥ 17 here. Run: apt-get install -y default-jre-headless maven (or: brew install openjdk)"
        )
    if not (cache() / version()).is_dir() and not shutil.which("mvn"):
        raise Missing("no Maven here, which brings Kafka. Run: apt-get install -y maven (or: brew install maven)")
    if tls and not shutil.which("openssl"):
        raise Missing("no openssl here, which makes the certificates. Run: apt-get install -y openssl")


def jars() -> Path:
    """The folder with Kafka's jars; resolved by Maven the first time, whole or not at all."""
    needed()
    there = cache() / version()
    if not there.is_dir():
        fresh = there.with_name(f"{there.name}.{os.getpid()}")
        command = ["mvn", "-B", "-q", "-f", str(POM), COPY_JARS, "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            shutil.rmtree(fresh, ignore_errors=True)
            raise Missing(f"Maven could not bring Kafka {there.name}:\n{(done.stdout + done.stderr).strip()}")
        try:
            fresh.rename(there)
        except OSError:  # another process was quicker
            shutil.rmtree(fresh, ignore_errors=True)
    return there


def java(main: str, *args: str, log: Path, heap: str = "384m") -> list[str]:
    """The command line that runs a class of Kafka's."""
    return [
        "java", f"-Xmx{heap}", "-Xms64m", "-XX:+UseSerialGC", "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}", f"-Dstreamproc.log={log}",
        "-cp", f"{jars()}/*", main, *args,
    ]  # fmt: skip


def free_ports(count: int) -> list[int]:
    """Ports that nobody has; all held at once, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


@dataclass
class Node:
    """One broker: its ports, and its process where one runs."""

    id: int
    client: int
    internal: int
    controller: int
    pid: int | None = None


@dataclass
class Cluster:
    """Brokers in a folder. All state is in that folder; any process can load it and go on."""

    folder: Path
    nodes: list[Node]
    tls: bool = False
    sasl: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    _children: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        brokers: int = 1,
        tls: bool = False,
        sasl: bool = False,
        ports: Sequence[int] = (),
        settings: Mapping[str, str] | None = None,
    ) -> Cluster:
        """Format the storage of new brokers in an empty folder; `settings` go before ours. None runs yet."""
        needed(tls=tls)
        folder.mkdir(parents=True, exist_ok=True)
        free = free_ports(3 * brokers)
        nodes = [
            Node(i, ports[i] if i < len(ports) else free[3 * i], free[3 * i + 1], free[3 * i + 2])
            for i in range(brokers)
        ]
        cluster = cls(folder, nodes, tls, sasl, dict(settings or {}))
        if tls:
            certificates(folder)
        for node in nodes:
            cluster._home(node).mkdir()
            text = "".join(f"{k}={v}\n" for k, v in cluster._properties(node).items())
            (cluster._home(node) / "server.properties").write_text(text)
            scram = [f"SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512)] if sasl else []
            args = ["format", "--cluster-id", "c3RyZWFtcHJvYy1sb2NhbA", "--config", cluster._config(node)]
            args += [part for one in scram for part in ("--add-scram", one)]
            log = cluster._home(node) / "format.log"
            done = subprocess.run(
                java("kafka.tools.StorageTool", *args, log=log),
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"formatting the storage of broker {node.id}: {(done.stdout + done.stderr).strip()}")
        cluster._save()
        return cluster

    @classmethod
    def load(cls, folder: Path) -> Cluster:
        said = json.loads((folder / "cluster.json").read_text())
        return cls(folder, [Node(**n) for n in said["nodes"]], said["tls"], said["sasl"], said["settings"])

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{node.client}" for node in self.nodes)

    @property
    def protocol(self) -> str:
        return ("SASL_" if self.sasl else "") + ("SSL" if self.tls else "PLAINTEXT")

    @property
    def ca(self) -> Path:
        """Whom clients have to trust, with --tls."""
        return self.folder / "ca.pem"

    def start(self, *ids: int) -> None:
        """Start these brokers, or all, and wait until they serve."""
        chosen = [self.nodes[i] for i in ids] or self.nodes
        since = {}
        for node in chosen:
            if self.running(node.id):
                continue
            log = self._home(node) / "server.log"
            since[node.id] = log.stat().st_size if log.exists() else 0
            with (self._home(node) / "out.log").open("ab") as out:
                child = subprocess.Popen(
                    java("kafka.Kafka", self._config(node), log=log),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                )  # fmt: skip
            node.pid, self._children[node.id] = child.pid, child
        self._save()
        deadline = time.monotonic() + READY_S
        for i, size in since.items():
            self._await_ready(self.nodes[i], size, deadline)

    def kill(self, i: int) -> None:
        """As a power cut for the process: kill -9."""
        self._end(self.nodes[i], signal.SIGKILL, within_s=10)

    def stop(self, i: int) -> None:
        """As an operator would: SIGTERM, and wait."""
        self._end(self.nodes[i], signal.SIGTERM, within_s=60)

    def stop_all(self) -> None:
        """All at once: each of three would wait for the others' leave."""
        for node in self.nodes:
            if self.running(node.id) and node.pid:
                os.kill(node.pid, signal.SIGTERM)
        for node in self.nodes:
            self._end(node, signal.SIGTERM, within_s=10)

    def running(self, i: int) -> bool:
        """Its process is there, and is really ours (a pid may have gone to somebody else since)."""
        pid = self.nodes[i].pid
        if pid is None:
            return False
        if child := self._children.get(i):
            return child.poll() is None
        ps = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return self._config(self.nodes[i]) in ps.stdout

    def _end(self, node: Node, how: signal.Signals, *, within_s: float) -> None:
        if node.pid is not None and self.running(node.id):
            os.kill(node.pid, how)
            deadline = time.monotonic() + within_s
            while self.running(node.id):
                if time.monotonic() > deadline:
                    os.kill(node.pid, signal.SIGKILL)
                    deadline += 10
                time.sleep(0.05)
        node.pid = None
        self._children.pop(node.id, None)
        self._save()

    def _await_ready(self, node: Node, since: int, deadline: float) -> None:
        log = self._home(node) / "server.log"
        while True:
            alive = self.running(node.id)
            said = log.read_bytes()[since:] if log.exists() else b""
            if b"Kafka Server started" in said:
                return
            if not alive or time.monotonic() > deadline:
                out = (self._home(node) / "out.log").read_text(errors="replace") + said.decode(errors="replace")
                raise RuntimeError(f"broker {node.id} did not come up; its last words:\n{out[-3000:]}")
            time.sleep(0.05)

    def _home(self, node: Node) -> Path:
        return self.folder / f"broker-{node.id}"

    def _config(self, node: Node) -> str:
        return str(self._home(node) / "server.properties")

    def _save(self) -> None:
        said = {
            "bootstrap": self.bootstrap,
            "nodes": [asdict(n) for n in self.nodes],
            "tls": self.tls,
            "sasl": self.sasl,
            "settings": self.settings,
        }
        fresh = self.folder / "cluster.json.fresh"
        fresh.write_text(json.dumps(said, indent=1))
        fresh.replace(self.folder / "cluster.json")

    def _properties(self, node: Node) -> dict[str, str]:
        copies = min(3, len(self.nodes))
        listeners = {"CLIENT": node.client, "INTERNAL": node.internal, "CONTROLLER": node.controller}
        at = {name: f"{name}://127.0.0.1:{port}" for name, port in listeners.items()}
        said = {
            "process.roles": "broker,controller",
            "node.id": node.id,
            "controller.quorum.voters": ",".join(f"{n.id}@127.0.0.1:{n.controller}" for n in self.nodes),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "INTERNAL",
            "listeners": ",".join(at.values()),
            "advertised.listeners": f"{at['CLIENT']},{at['INTERNAL']}",
            "listener.security.protocol.map": f"CLIENT:{self.protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self._home(node) / "data",
            # What holds in production too: see README.md.
            "default.replication.factor": copies,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "min.insync.replicas": max(1, copies - 1),
            "transaction.state.log.min.isr": max(1, copies - 1),
            "unclean.leader.election.enable": "false",
            "auto.create.topics.enable": "false",
            "offsets.retention.minutes": 525600,
            "message.max.bytes": MAX_BYTES,
            "replica.fetch.max.bytes": MAX_BYTES,
            # What makes one machine bear it, and tests short.
            "num.network.threads": 2,
            "num.io.threads": 4,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.num.partitions": 8,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "broker.session.timeout.ms": 6000,
            "log.cleaner.dedupe.buffer.size": 8 * 2**20,
            "log.cleaner.backoff.ms": 1000,
            "log.retention.check.interval.ms": 2000,
            "log.initial.task.delay.ms": 1000,
            "log.segment.delete.delay.ms": 1000,
        }
        if self.tls:
            said |= {
                "listener.name.client.ssl.keystore.type": "PEM",
                "listener.name.client.ssl.keystore.location": self.folder / "server.pem",
                "listener.name.client.ssl.truststore.type": "PEM",
                "listener.name.client.ssl.truststore.location": self.ca,
            }
        if self.sasl:
            module = "org.apache.kafka.common.security"
            scram = f"{module}.scram.ScramLoginModule required;"
            said |= {
                "listener.name.client.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                "listener.name.client.plain.sasl.jaas.config": f'{module}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
                "listener.name.client.scram-sha-256.sasl.jaas.config": scram,
                "listener.name.client.scram-sha-512.sasl.jaas.config": scram,
            }
        return {key: str(value) for key, value in said.items()} | self.settings


def certificates(folder: Path) -> None:
    """An authority of our own, and a certificate for localhost signed by it: what --tls serves, `ca.pem` for clients."""

    def openssl(*args: str) -> None:
        done = subprocess.run(["openssl", *args], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"openssl {args[0]}: {done.stderr.strip()}")

    elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *elliptic, "-subj", "/CN=streamproc local CA", "-days", "3650",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    openssl("req", *elliptic, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3650",
            "-extfile", "names", "-out", "server.crt")  # fmt: skip
    (folder / "server.pem").write_text((folder / "server.key").read_text() + (folder / "server.crt").read_text())
