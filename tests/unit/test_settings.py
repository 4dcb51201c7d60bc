"""Settings: which source wins, which names are known, and that secrets stay where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamproc.errors import Misconfigured
from streamproc.settings import EmbeddedAt, KafkaAt, load, names, parse_bus, variable
from streamproc.settings.sources import INHERITED, OF_DEVELOPERS


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from outside: neither from the environment nor from a file beside the tests."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("STREAMPROC_") or name in INHERITED or name == "KAFKA_BOOTSTRAP_SERVERS":
            monkeypatch.delenv(name)


def test_options_win_over_the_environment_that_wins_over_the_file_that_wins_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load().partitions is None
    Path("streamproc.toml").write_text('partitions = 3\ntopic_prefix = "file."\n[bounds]\ncalls = 5\nwindow = 6')
    assert load().partitions == 3
    monkeypatch.setenv("STREAMPROC_PARTITIONS", "4")
    monkeypatch.setenv("STREAMPROC_BOUNDS__CALLS", "7")
    assert load().partitions == 4
    assert load({"partitions": 5}).partitions == 5
    assert load({"partitions": None}).partitions == 4, "an option that was not given says nothing"
    told = load()
    assert (told.topic_prefix, told.bounds.calls, told.bounds.window) == ("file.", 7, 6), "tables merge name by name"


def test_names_that_people_have_already_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": "a:9092, b:9093",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": "me",
        "KAFKA_SASL_PASSWORD": "hush",
        "KAFKA_SSL_CAFILE": "/ca.pem",
        "OPENAI_BASE_URL": "http://127.0.0.1:8000/v1",
        "OPENAI_API_KEY": "sk-hush",
        "HF_TOKEN": "hf_hush",
        "HF_HOME": "/weights",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        "LOG_LEVEL": "WARNING",
    }.items():
        monkeypatch.setenv(name, value)
    told = load()
    assert told.bus == "kafka://a:9092,b:9093"
    assert told.kafka.password
    assert told.kafka.password.get_secret_value() == "hush"
    assert told.kafka.model_dump(exclude={"password"}) == {
        "protocol": "SASL_SSL",
        "mechanism": "SCRAM-SHA-512",
        "username": "me",
        "cafile": Path("/ca.pem"),
    }
    assert told.openai.api_key
    assert told.openai.base_url == "http://127.0.0.1:8000/v1"
    assert told.hf.home == Path("/weights")
    assert told.otel.endpoint == "http://127.0.0.1:4318"
    assert told.log_level == "warning"


def test_what_the_environment_says_to_kafkas_other_clients_is_no_error_on_the_embedded_bus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "scram-sha-256")
    assert load().kafka.mechanism == "SCRAM-SHA-256"


@pytest.mark.parametrize(
    ("theirs", "ours"), [("WARN", "warning"), ("CRITICAL", "error"), ("trace", "debug"), ("Info", "info")]
)
def test_levels_of_other_programs_mean_the_nearest_of_ours(
    theirs: str, ours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", theirs)
    assert load().log_level == ours


def test_our_own_name_wins_over_an_inherited_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:9092")
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:here.db")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "theirs")
    monkeypatch.setenv("STREAMPROC_KAFKA__USERNAME", "ours")
    assert load().bus == "embedded:here.db"
    assert load().kafka.username == "ours"


@pytest.mark.parametrize("name", [n for n in names() if n not in ("endpoints", "budgets")])
def test_every_setting_can_be_given_in_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "bus": "embedded:x",
        "kafka.protocol": "SSL",
        "log_level": "debug",
        "session_s": "44",
        "embedded.heartbeat_s": "1",
        "backoff.attempts": "9",
    }
    if name == "kafka.mechanism":
        monkeypatch.setenv("STREAMPROC_KAFKA", '{"protocol":"SASL_SSL","username":"u","password":"p"}')
        values[name] = "PLAIN"
    monkeypatch.setenv(variable(name), values.get(name, "7"))
    found: object = load()
    for part in name.split("."):
        found = getattr(found, part)
    if hasattr(found, "get_secret_value"):
        found = found.get_secret_value()
    assert str(found).removesuffix(".0") == values.get(name, "7")


def test_secrets_are_in_no_representation_and_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hush")
    monkeypatch.setenv("OPENAI_API_KEY", "hush")
    monkeypatch.setenv("HF_TOKEN", "hush")
    assert "hush" not in repr(load()) + str(load()) + str(load().model_dump()) + load().model_dump_json()
    for options in (
        {"partitions": 0},
        {"kafka.password": ["hush"]},
        {"kafka": "hush"},
        {"bus": "kafka://a:1", "kafka.protocol": "SASL_SSL"},
        {"bus": "redis://me:hush@broker:9092"},
        {"claims.store": 7, "openai.api_key": {"hush": 1}},
        {"bus": "kafka://me:hush@broker:9092"},
    ):
        with pytest.raises(Misconfigured) as caught:
            load(options)
        assert "hush" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("buss = 1", "no setting 'buss'; did you mean 'bus'?"),
        ("[kafka]\nprotocl = 'SSL'", "no setting 'kafka.protocl'; did you mean 'protocol'?"),
        ("bounds.call = 3", "no setting 'bounds.call'; did you mean 'calls'?"),
        ("bounds.calls = 0", "bounds.calls is 0; it must be above 0"),
        ("[endpoints.x]\ncard = 'a'\nurl = ['b']", "no setting 'endpoints.x.url'; did you mean 'urls'?"),
        ("[endpoints.x]\ncard = 'a'", "setting 'endpoints.x.urls' is missing"),
        ("[budgets.soccer]\ncalls = 1", "'soccer' is no budget: it looks like 'task:NAME'"),
        ("[budgets.'task:soccer']", "it limits nothing: say tokens, calls or money"),
        ("[budgets.'task:soccer']\nmoney = -1.0", "budgets.task:soccer.money"),
        ("[budgets.'task:soccer']\nmony = 1.0", "did you mean 'money'?"),
        ("partitions = 0", "setting 'partitions' (STREAMPROC_PARTITIONS): 0: "),
        ("topic_prefix = 'a/b'", "setting 'topic_prefix' (STREAMPROC_TOPIC_PREFIX): 'a/b': "),
        ("bus = 'redis://x'", "'redis://x' is neither embedded:PATH nor kafka://host:port"),
        ("embedded.heartbeat_s = 9", "session_s 10 must be at least twice embedded.heartbeat_s 9"),
        (
            "bus = 'kafka://a:1'\nkafka.protocol = 'sasl_ssl'",
            "kafka.protocol SASL_SSL needs kafka.mechanism, kafka.username",
        ),
        ("bus = 'kafka://a:1'\nkafka.mechanism = 'PLAIN'", "needs kafka.protocol SASL_SSL or SASL_PLAINTEXT"),
        ("partitions = ", "settings file 'streamproc.toml' cannot be read"),
    ],
)
def test_an_error_names_the_setting_the_value_and_what_to_do(text: str, told: str) -> None:
    Path("streamproc.toml").write_text(text)
    with pytest.raises(Misconfigured) as caught:
        load()
    assert told in str(caught.value)


def test_a_misspelt_variable_is_an_error_and_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPROC_BOUNDS__CALL", "7")
    with pytest.raises(Misconfigured, match="did you mean 'STREAMPROC_BOUNDS__CALLS'"):
        load()


def test_what_deploy_and_tests_read_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OF_DEVELOPERS:
        monkeypatch.setenv(name, "/somewhere")
    load()


def test_what_kubernetes_says_of_a_service_of_our_name_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_8080_TCP",
        "PORT_8080_TCP_ADDR",
        "WEB_PORT",
    ):
        monkeypatch.setenv(f"STREAMPROC_{name}", "tcp://10.0.0.1:8080")
    load()


def test_a_table_in_the_environment_is_json_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPROC_ENDPOINTS", '{"qwen2.5": {"card": "qwen", "urls": ["http://127.0.0.1:8000/v1"]}}')
    assert load().endpoints["qwen2.5"].urls == ("http://127.0.0.1:8000/v1",)
    monkeypatch.setenv("STREAMPROC_BUDGETS", '{"source:match1": {"money": 2.5}}')
    assert load().budgets["source:match1"].money == 2.5
    monkeypatch.setenv("STREAMPROC_ENDPOINTS", "{")
    with pytest.raises(Misconfigured, match="written as JSON"):
        load()


def test_a_settings_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"other\.toml' is not there"):
        load(file=tmp_path / "other.toml")


def test_a_bus_is_a_file_or_brokers() -> None:
    assert parse_bus("embedded:./a b.db") == EmbeddedAt(Path("a b.db"))
    assert parse_bus("embedded:~/x.db") == EmbeddedAt(Path.home() / "x.db")
    assert parse_bus("kafka://a:1,b-2.c:9092,[::1]:3/") == KafkaAt("a:1,b-2.c:9092,[::1]:3")


@pytest.mark.parametrize(
    "text", ["", "embedded", "embedded:", "kafka:a:1", "kafka://", "kafka://a", "kafka://a:1,,b:2", "x"]
)
def test_anything_else_is_no_bus(text: str) -> None:
    with pytest.raises(Misconfigured, match="is neither embedded:PATH nor kafka://host:port"):
        parse_bus(text)
