"""`streamproc doctor`: the hop that is broken is named, with what to do, and nothing else is."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.pipeline.checkup import apart
from tests import brokers
from tests.e2e.answers import MODEL, Scripted, scripted
from tests.e2e.films import film

GOOD = ("ok", "note")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")
    for name in ("OPENAI_BASE_URL", "KAFKA_SECURITY_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)


def streamproc(*arguments: str | Path) -> int:
    return exit_code(build(), [*map(str, arguments)])


def broken(capfd: pytest.CaptureFixture[str], *arguments: str, code: Code) -> list[dict[str, Any]]:
    """The hops that are not well; the others are all there."""
    capfd.readouterr()
    assert streamproc("doctor", *arguments, "--json") == code
    told = json.loads(capfd.readouterr().out)
    bad = [hop for hop in told["hops"] if hop["verdict"] not in GOOD]
    assert told["ok"] == (not bad)
    assert all(hop["remedy"] for hop in bad)
    return bad


def endpoint(url: str, served_name: str = MODEL) -> None:
    Path("streamproc.toml").write_text(
        f'[endpoints.{MODEL}]\ncard = "openai-compatible"\nurls = ["{url}"]\nserved_name = "{served_name}"\n'
    )


def test_where_all_is_well_every_hop_says_so(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert streamproc("topics", "create") == Code.DONE
    with scripted(lambda colours: "Yes") as served:
        endpoint(served.url)
        assert broken(capfd, code=Code.DONE) == []
        assert streamproc("doctor") == Code.DONE
    told = capfd.readouterr().out
    assert told.splitlines()[-1] == "all is well"
    for hop in ("settings", "bus", "topics", "services", f"endpoint {MODEL}", f"clock of {MODEL}", "disk", "versions"):
        assert hop in told


def test_a_bus_that_is_not_there_is_named_and_the_other_hops_are_looked_at_all_the_same(
    capfd: pytest.CaptureFixture[str],
) -> None:
    [bus] = broken(capfd, code=Code.UNREACHABLE)
    assert bus["hop"] == "bus"
    assert "topics create" in bus["remedy"]
    [bus] = broken(capfd, "--bus", "kafka://127.0.0.1:1", code=Code.UNREACHABLE)
    assert "127.0.0.1:1" in bus["seen"]


def test_a_bus_that_is_some_other_file_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    Path("streamproc.db").write_bytes(os.urandom(9000))
    [bus] = broken(capfd, code=Code.FAILED)
    assert (bus["hop"], bus["verdict"]) == ("bus", "failed")


def test_a_wrong_setting_is_the_first_hop(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPROC_SESSION_S", "soon")
    [settings] = broken(capfd, code=Code.FAILED)
    assert settings["hop"] == "settings"
    assert "STREAMPROC_SESSION_S" in settings["seen"]


def test_an_endpoint_that_is_away_serves_another_model_or_refuses_is_told_apart(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert streamproc("topics", "create") == Code.DONE
    endpoint("http://127.0.0.1:9/v1")
    [away] = broken(capfd, code=Code.UNREACHABLE)
    assert "127.0.0.1:9" in away["hop"]
    with scripted(lambda colours: 400) as served:
        endpoint(served.url, "other")
        [other] = broken(capfd, code=Code.FAILED)
        assert other["seen"] == f"it serves {MODEL}, not other"
        assert f'served_name = "{MODEL}"' in other["remedy"]
        endpoint(served.url)
        [refuses] = broken(capfd, code=Code.FAILED)
        assert "not this picture" in refuses["seen"]


def test_an_endpoint_of_another_time_is_told_by_how_much(capfd: pytest.CaptureFixture[str]) -> None:
    assert streamproc("topics", "create") == Code.DONE
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    served: Scripted
    with scripted(lambda colours: "Yes") as served:
        served.headers = {"Date": format_datetime(an_hour_ago, usegmt=True)}
        endpoint(served.url)
        [clock] = broken(capfd, code=Code.FAILED)
    assert "behind ours" in clock["seen"]
    assert "NTP" in clock["remedy"]


@pytest.mark.parametrize(
    ("date", "verdict"),
    [
        ("Sun, 01 Mar 2026 20:45:00 GMT", "ok"),
        ("Sun, 01 Mar 2026 20:44:57 GMT", "ok"),
        ("Sun, 01 Mar 2026 20:45:30 -0000", "failed"),
        ("yesterday", "note"),
        ("", "note"),
    ],
)
def test_a_date_header_is_read_as_servers_write_it(date: str, verdict: str) -> None:
    assert apart("clock", date, datetime(2026, 3, 1, 20, 45, 1, tzinfo=UTC)).verdict == verdict


def test_who_is_absent_is_named_with_who_waits_and_a_file_that_is_gone_with_where_it_was(
    capfd: pytest.CaptureFixture[str],
) -> None:
    match = film(Path("match.mp4"), 8, ("red", 2.0, 4.0))
    assert streamproc("run", match, "--set", "labels=red box", "--only", "decode") == Code.DONE
    absent = broken(capfd, code=Code.FAILED)
    assert [one["hop"] for one in absent] == [
        "service caption.observer",
        "service detect.observer",
        "service dedup",
        "service ensemble",
    ]
    assert absent[1]["seen"] == "nobody works in it, and match waits for it"
    assert absent[1]["remedy"] == "streamproc up detect.observer"
    match.unlink()
    assert "footage of match" in [one["hop"] for one in broken(capfd, code=Code.FAILED)]
    film(Path("match.mp4"), 8, ("red", 2.0, 4.0))
    assert streamproc("run", match, "--set", "labels=red box") == Code.DONE
    Path("match.mp4").unlink()
    assert broken(capfd, code=Code.DONE) == [], "what is complete needs nobody, and no file"


def test_a_claim_store_that_cannot_be_written_is_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert streamproc("topics", "create") == Code.DONE
    Path("file").write_text("in the way")
    monkeypatch.setenv("STREAMPROC_CLAIMS__STORE", "file/store")
    [store] = broken(capfd, code=Code.UNREACHABLE)
    assert store["hop"] == "claim store"
    monkeypatch.setenv("STREAMPROC_CLAIMS__STORE", "store")
    assert broken(capfd, code=Code.DONE) == []


def test_a_store_of_no_known_kind_is_told(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert streamproc("topics", "create") == Code.DONE
    monkeypatch.setenv("STREAMPROC_CLAIMS__STORE", "ftp://somewhere")
    [store] = broken(capfd, code=Code.FAILED)
    assert "neither a folder nor s3" in store["seen"]


@pytest.mark.kafka
def test_on_kafka_missing_topics_are_named_and_all_is_well_once_they_are_made(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if (why := brokers.missing()) and not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    monkeypatch.setenv("STREAMPROC_BUS", f"kafka://{brokers.shared()}")
    monkeypatch.setenv("STREAMPROC_TOPIC_PREFIX", f"doctor-{uuid4().hex[:8]}-")
    [topics] = broken(capfd, "--bus", f"kafka://{brokers.shared()}", code=Code.FAILED)
    assert topics["hop"] == "topics"
    assert topics["remedy"] == "streamproc topics create"
    assert streamproc("topics", "create", "--partitions", "2", "--replication", "1") == Code.DONE
    assert broken(capfd, code=Code.DONE) == []
