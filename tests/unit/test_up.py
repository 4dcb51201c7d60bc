"""Where `streamproc up` serves health and metrics when the port is another's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.cli.up import served_at
from streamproc.errors import Misconfigured
from streamproc.settings import Settings, load
from streamproc.settings.options import Http


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as another:
        yield another.getsockname()[1]


def test_a_port_that_is_only_the_default_gives_way_to_one_that_is_free(taken: int) -> None:
    unsaid = Settings(http=Http.model_construct(_fields_set=set(), host="127.0.0.1", port=taken))
    with served_at(unsaid) as at:
        assert at.getsockname()[1] not in (0, taken)


@pytest.mark.parametrize("how", ["option", "environment", "file"])
def test_a_port_that_was_asked_for_and_is_taken_is_wrong_usage(
    taken: int,
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if how == "environment":
        monkeypatch.setenv("STREAMPROC_HTTP__PORT", str(taken))
    if how == "file":
        Path("streamproc.toml").write_text(f"http.port = {taken}\n")
    asked = ["--port", str(taken)] if how == "option" else []
    assert exit_code(build(), ["up", "--until-idle", "--bus", "embedded:x.db", *asked]) == Code.USAGE
    assert capsys.readouterr().err == f"http: port {taken} of 127.0.0.1 is taken; `--port 0` takes any that is free\n"
    assert not Path("x.db").exists()


def test_an_address_that_is_not_of_this_machine_is_wrong_usage() -> None:
    with pytest.raises(Misconfigured, match=r"port 0 of 192\.0\.2\.1 cannot be served at"):
        served_at(load({"http.host": "192.0.2.1", "http.port": 0}))
