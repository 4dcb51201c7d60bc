"""What a process at work says of its endpoints and budgets to whoever asks `/metrics`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from tests.e2e.films import film

DEADLINE_S = 60
ANSWERED = 'streamproc_endpoint_calls_total{model="observer",outcome="done"} 3.0'


def test_calls_limits_and_budgets_are_seen_from_outside(tmp_path: Path) -> None:
    bus = f"embedded:{tmp_path / 'streamproc.db'}"
    match = film(tmp_path / "match.mp4", 20, ("red", 4.0, 9.0))
    assert exit_code(build(), ["run", str(match), "--only", "decode", "--bus", bus]) == Code.DONE
    environment = {**os.environ, "STREAMPROC_BUDGETS": '{"task:any": {"calls": 3}}', "LOG_LEVEL": "warning"}
    command = [sys.executable, "-m", "streamproc", "up", "--bus", bus, "--port", "0", "--workers", "1"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as up:
        try:
            assert up.stderr is not None
            at = next(line for line in up.stderr if "health and metrics" in line).split()[-1]
            said, deadline = "", time.monotonic() + DEADLINE_S
            while ANSWERED not in said or 'streamproc_budget_left_out_total{budget="task:any"} 0.0' in said:
                assert time.monotonic() < deadline, said
                with urllib.request.urlopen(f"{at}/metrics", timeout=10) as answer:
                    said = answer.read().decode()
        finally:
            up.terminate()
            up.communicate(timeout=30)
    assert 'streamproc_endpoint_limit{model="observer"' in said
    assert 'streamproc_records_in_total{service="decode"}' in said
