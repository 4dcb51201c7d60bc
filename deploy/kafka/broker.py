#!/usr/bin/env python3
"""A local Kafka in one command: `python deploy/kafka/broker.py up`, and `down`. For people; tests use cluster.py itself.

It needs Python ≥ 3.11 alone, Java ≥ 17, Maven (the first time), and openssl for --tls.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TextIO

from cluster import PASSWORD, USER, Cluster, Missing, cache, jars, version


def say(text: str, to: TextIO | None = None) -> None:
    (to or sys.stdout).write(text + "\n")


def up(args: argparse.Namespace) -> Cluster:
    """The cluster in the folder, running; a new one where there is none."""
    folder: Path = args.folder
    if (folder / "cluster.json").exists():
        cluster = Cluster.load(folder)
        if (len(cluster.nodes), cluster.tls, cluster.sasl) != (args.brokers, args.tls, args.sasl):
            raise Missing(
                f"{folder} holds brokers of another kind. Run: {sys.argv[0]} down --wipe, or name another --folder"
            )
    else:
        if not (cache() / version()).is_dir():
            say(f"Kafka {version()} comes from Maven Central into {cache()}, once (45 MB)", sys.stderr)
            jars()
        ports = [args.port + i for i in range(args.brokers)] if args.port else []
        cluster = Cluster.create(folder, brokers=args.brokers, tls=args.tls, sasl=args.sasl, ports=ports)
    cluster.start()
    return cluster


def down(args: argparse.Namespace) -> None:
    if (args.folder / "cluster.json").exists():
        Cluster.load(args.folder).stop_all()
        if args.wipe:
            shutil.rmtree(args.folder)


def describe(cluster: Cluster) -> dict[str, object]:
    """What a client needs, by the names of the environment that clients read."""
    said: dict[str, object] = {
        "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap,
        "KAFKA_SECURITY_PROTOCOL": cluster.protocol,
    }
    if cluster.tls:
        said["KAFKA_SSL_CAFILE"] = str(cluster.ca)
    if cluster.sasl:
        said |= {
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD": PASSWORD,
        }
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description="A local Kafka", epilog="example: eval $(broker.py up --brokers 3)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (
        ("up", "start; prints what to put into the environment"),
        ("down", "stop; data stays"),
        ("status", "which brokers run; exit code 1 if one does not"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("--folder", type=Path, default=cache() / "local", help="where its data is")
        if name == "up":
            command.add_argument("--brokers", type=int, default=1, help="3 for replicas: RF 3, min ISR 2")
            command.add_argument("--port", type=int, help="of the first broker; free ports by default")
            command.add_argument("--tls", action="store_true", help="clients come by TLS")
            command.add_argument("--sasl", action="store_true", help="clients log in, by PLAIN or SCRAM")
        if name == "down":
            command.add_argument("--wipe", action="store_true", help="take the data away too")
    args = parser.parse_args()
    args.folder = args.folder.resolve()
    try:
        if args.command == "up":
            for key, value in describe(up(args)).items():
                say(f"export {key}={value}")
        elif args.command == "down":
            down(args)
        else:
            cluster = Cluster.load(args.folder)
            running = [cluster.running(node.id) for node in cluster.nodes]
            for node, runs in zip(cluster.nodes, running, strict=True):
                say(f"broker {node.id}  127.0.0.1:{node.client}  {'pid ' + str(node.pid) if runs else 'down'}")
            return 0 if all(running) else 1
    except FileNotFoundError:
        say(f"no brokers in {args.folder}. Run: {sys.argv[0]} up", sys.stderr)
        return 1
    except (Missing, RuntimeError) as e:
        say(str(e), sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
