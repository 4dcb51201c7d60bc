"""Cards: that those we have are sound, what is wrong with one that is not, and what an ENDPOINT stands for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from streamproc.errors import Misconfigured
from streamproc.models.card import LOCAL, Card, Price, card, cards, read, served
from streamproc.models.image_tokens import Grid, Patches, Tiles

SOUND = 'about = "a"\nmodel = "m"\nsources = ["s"]\n'


@dataclass(frozen=True)
class Named:
    """As `[endpoints.NAME]` of the settings reads."""

    card: str
    urls: tuple[str, ...]
    api_key_env: str | None = None
    served_name: str | None = None
    weights: str | None = None
    calls_per_minute: int | None = None
    calls_per_day: int | None = None
    stand_ins: tuple[str, ...] = ()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def wrong(file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(Misconfigured) as e:
        read(file)
    return str(e.value)


@pytest.mark.parametrize("name", cards())
def test_every_card_says_where_its_values_come_from(name: str) -> None:
    found = card(name)
    assert found.name == name
    assert found.sources
    assert all(found.sources)
    assert found.speak.image_tokens(448, 448) is None or 0 < (found.speak.image_tokens(448, 448) or 0) < 5000


@pytest.mark.parametrize("name", cards())
def test_a_model_that_vllm_does_not_serve_says_why_or_where_it_is(name: str) -> None:
    found = card(name)
    assert found.serve or found.url or found.notes or name == "observer"
    assert (found.api_key_env is None) == (found.url is None)


def test_there_is_a_card_for_all_that_the_predecessors_ran() -> None:
    assert set(cards()) >= {
        *("glm-4.5v", "gpt-oss-120b", "qwen3-vl-235b-a22b-thinking", "qwen3-next-80b-a3b-instruct", "qwen2.5-vl-7b"),
        *("qwen2.5-vl-32b-awq", "llava-next-video-7b", "llava-v1.6-mistral-7b", "idefics2-8b", "phi-3.5-vision"),
        *("phi-4-multimodal", "minicpm-v-2.6", "pixtral-12b", "llama-3.2-11b-vision", "internvl3-8b"),
        *("smolvlm2-500m-video", "videollama3-7b", "gpt-4o", "gemini-2.0-flash", "llama-4-maverick", "llama-4-scout"),
        *("mistral-small-3.2", "gemma-3-27b", "nova-lite", "nemotron-nano-12b-v2-vl", "openai-compatible", "observer"),
    }


def test_a_key_that_no_card_has_is_an_error_with_the_nearest_one(written: Path) -> None:
    said = wrong(written, SOUND + "[speak]\nimage_limits = 3\n")
    assert "no key 'speak.image_limits'; did you mean 'image_limit'?" in said
    assert "no key 'serv'; did you mean 'serve'?" in wrong(written, SOUND + "[serv]\n")
    assert "did you mean 'max_model_len'?" in wrong(written, SOUND + "[serve]\nmax_model_length = 3\n")
    rule = 'tokens_by_size = { by = "patches", patch_px = 28, longest = 28 }'
    assert "did you mean 'longest_px'?" in wrong(written, SOUND + f"[speak]\n{rule}\n")
    assert "'patches', 'grid', 'tiles'" in wrong(written, SOUND + '[speak]\ntokens_by_size = { by = "area" }\n')


def test_a_value_out_of_bounds_is_named_with_the_rule(written: Path) -> None:
    assert "'sampling.temperature' is 3.0" in wrong(written, SOUND + "[sampling]\ntemperature = 3.0\n")
    assert "'sources' is missing" in wrong(written, 'about = "a"\nmodel = "m"\n')
    assert "{number}" in wrong(written, SOUND + '[speak]\nlabel = "Frame {nummer}"\n')
    assert "cannot be read" in wrong(written, "about = ")
    assert "max_model_len is 8192" in wrong(written, SOUND + "[serve]\nmax_model_len = 8192\n")


def test_a_card_of_ones_own_is_named_by_its_path(written: Path) -> None:
    written.write_text(SOUND + '[speak]\nlabel = "Time {time_s:.1f}s:"\n')
    assert card(str(written)).name == "mine"
    assert served(str(written)).model == "m"
    with pytest.raises(Misconfigured, match="cannot be read"):
        card(str(written.with_name("other.toml")))


@pytest.mark.parametrize(
    ("rule", "size", "tokens"),
    [
        (Patches(by="patches", patch_px=28), (448, 448), 256),
        (Patches(by="patches", patch_px=28, min_px=3136), (20, 20), 4),
        (Patches(by="patches", patch_px=28, max_px=1003520), (1920, 1080), 26 * 47),
        (Patches(by="patches", patch_px=28), (640, 360), 23 * 13),
        (Patches(by="patches", patch_px=16, longest_px=1024, round_up=True, per_row=1), (2048, 1024), 64 * 32 + 32),
        (Patches(by="patches", patch_px=16, round_up=True), (17, 16), 2),
        (
            Tiles(by="tiles", tile_px=512, tile_tokens=170, base_tokens=85, longest_px=2048, shortest_px=768),
            (1024, 1024),
            765,
        ),
        (
            Tiles(by="tiles", tile_px=512, tile_tokens=170, base_tokens=85, longest_px=2048, shortest_px=768),
            (2048, 4096),
            1105,
        ),
        (Tiles(by="tiles", tile_px=768, tile_tokens=258, whole_px=384), (384, 300), 258),
        (Tiles(by="tiles", tile_px=768, tile_tokens=258, whole_px=384), (1280, 720), 516),
        (Grid(by="grid", tile_px=448, tile_tokens=256, max_tiles=12), (448, 448), 256),
        (Grid(by="grid", tile_px=448, tile_tokens=256, max_tiles=12), (896, 448), 3 * 256),
        (Grid(by="grid", tile_px=448, tile_tokens=256, max_tiles=12), (1344, 1344), 10 * 256),
    ],
)
def test_tokens_of_a_picture_are_counted_as_its_processor_does(
    rule: Patches | Grid | Tiles, size: tuple[int, int], tokens: int
) -> None:
    assert rule.tokens(*size) == tokens


def test_a_call_costs_what_its_tokens_cost() -> None:
    price = Price(input=2.0, cached=1.0, output=10.0, as_of="2026")
    assert price.of(into=1000, cached=400, out=100) == pytest.approx((600 * 2 + 400 * 1 + 100 * 10) / 1e6)
    assert Price(input=2.0, output=0.0, as_of="2026").of(into=10, cached=10, out=0) == pytest.approx(20 / 1e6)


# endpoints ----------------------------------------------------------------------------------------------------------


def test_a_card_by_its_name_is_asked_where_it_is_offered_or_on_this_machine() -> None:
    assert served("gpt-4o").urls == ("https://api.openai.com/v1",)
    assert served("gpt-4o").api_key_env == "OPENAI_API_KEY"
    assert served("qwen2.5-vl-7b").urls == (LOCAL,)
    assert served("qwen2.5-vl-7b", base_url="http://gpu:8000/v1").urls == ("http://gpu:8000/v1",)


def test_a_name_that_no_service_can_have_is_refused(tmp_path: Path) -> None:
    assert "'name' is 'My Card'" in wrong(tmp_path / "My Card.toml", SOUND)
    with pytest.raises(Misconfigured, match="services are called after it"):
        served("My GPU", {"My GPU": Named("gpt-4o", ("http://a/v1",))})


def test_several_urls_are_replicas() -> None:
    found = served("qwen2.5-vl-7b@http://a:8000/v1/,http://b:8000/v1")
    assert found.urls == ("http://a:8000/v1", "http://b:8000/v1")
    assert found.model == "Qwen/Qwen2.5-VL-7B-Instruct"


def test_an_endpoint_of_the_settings_goes_before_a_card_of_the_same_name() -> None:
    named = {"gpt-4o": Named("qwen2.5-vl-7b", ("http://a/v1",), served_name="q")}
    found = served("gpt-4o", named)
    assert (found.name, found.card.name, found.model) == ("gpt-4o", "qwen2.5-vl-7b", "q")


def test_what_a_provider_allows_is_what_the_card_says_unless_the_settings_know_better() -> None:
    assert served("gemma-3-27b").allowed.calls_per_day == 1000
    found = served("paid", {"paid": Named("gemma-3-27b", ("http://a/v1",), calls_per_minute=500)})
    assert (found.allowed.calls_per_minute, found.allowed.calls_per_day) == (500, 1000)
    assert served("qwen2.5-vl-7b").allowed.calls_per_day is None


def test_a_key_goes_to_the_api_that_it_is_for_and_to_nobody_else() -> None:
    assert served("gpt-4o@https://elsewhere.example/v1").api_key_env is None
    assert served("gpt-4o@https://api.openai.com/v1").api_key_env == "OPENAI_API_KEY"
    assert served("mine", {"mine": Named("gpt-4o", ("https://elsewhere.example/v1",))}).api_key_env is None
    assert (
        served("mine", {"mine": Named("gpt-4o", ("https://e.example/v1",), api_key_env="MINE")}).api_key_env == "MINE"
    )


def test_a_key_is_read_from_its_variable_and_missed_by_name() -> None:
    found = served("gpt-4o")
    assert found.key({"OPENAI_API_KEY": " secret "}) == "secret"
    assert served("qwen2.5-vl-7b").key({}) is None
    assert "secret" not in repr(found)
    with pytest.raises(Misconfigured, match="OPENAI_API_KEY"):
        found.key({"OPENAI_API_KEY": " "})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("qwen2.5-vl-7", "did you mean 'qwen2.5-vl-7b'"),
        ("qwen2.5-vl-7@http://a/v1", "did you mean 'qwen2.5-vl-7b'"),
        ("my-model@http://a/v1", "A server of your own is openai-compatible@URL"),
        ("qwen2.5-vl-7b@", "is no URL"),
        ("qwen2.5-vl-7b@gpu:8000", "is no URL"),
        ("qwen2.5-vl-7b@http://a/v1,", "is no URL"),
        ("qwen2.5-vl-7b@http://a/v1,http://a/v1/", "twice"),
        ("qwen2.5-vl-7b@http://me:pw@a/v1", "api_key_env"),
        ("", "no endpoint"),
    ],
)
def test_what_is_no_endpoint_is_told_with_what_it_should_be(text: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why.replace("'", ".")) as e:
        served(text)
    assert "pw" not in str(e.value)


def test_the_processor_is_part_of_how_a_picture_is_understood() -> None:
    one = card("qwen2.5-vl-7b")
    assert one.serve is not None
    other = Card(**(one.model_dump() | {"serve": one.serve.model_dump() | {"mm_processor_kwargs": {"max_pixels": 5}}}))
    assert one.processor != other.processor
