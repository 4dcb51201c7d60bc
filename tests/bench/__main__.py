"""`python -m tests.bench [NAME…] [--json]`: a line a value. Exit code 1 where a goal was missed."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path


def names() -> list[str]:
    """Modules with a `run`, found without importing them: some need what a machine may lack."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py") if "\ndef run(" in file.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all of them by default: {', '.join(names())}")
    parser.add_argument("--json", action="store_true", help='{"name","value","goal","ok"} a line')
    said = parser.parse_args()
    if unknown := set(said.names) - set(names()):
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    missed = False
    for name in said.names or names():
        for what, value, goal, ok in import_module(f"tests.bench.{name}").run():
            missed |= ok is False
            if said.json:
                print(
                    json.dumps({"name": what, "value": value, "goal": goal, "ok": ok}, ensure_ascii=False), flush=True
                )
            else:
                verdict = "" if ok is None else f"  goal {goal:g}  {'ok' if ok else 'MISSED'}"
                print(f"{what:60} {value:12.4g}{verdict}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
