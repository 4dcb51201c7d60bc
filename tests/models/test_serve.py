"""The command that serves a card: what stands in it, and that vLLM's own parser takes every flag."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from streamproc.errors import Misconfigured
from streamproc.models.card import Card, Serve, card, cards
from streamproc.models.serve import Load, batch_tokens, command

SERVED = [name for name, found in cards().items() if found.serve]


def value(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_flags_are_vllms_own_names() -> None:
    arguments = command(card("glm-4.5v"))
    assert arguments[:3] == ["vllm", "serve", "zai-org/GLM-4.5V"]
    assert value(arguments, "--tensor-parallel-size") == "4"
    assert value(arguments, "--reasoning-parser") == "glm45"
    assert "--enable-expert-parallel" in arguments


def test_tables_go_as_json_and_refusals_as_no() -> None:
    whole = Card(
        name="c",
        about="a",
        model="m",
        sources=("s",),
        serve=Serve(limit_mm_per_prompt={"image": 4}, enable_prefix_caching=False, lora_modules=("a=b", "c=d")),
    )
    arguments = command(whole)
    assert json.loads(value(arguments, "--limit-mm-per-prompt")) == {"image": 4}
    assert "--no-enable-prefix-caching" in arguments
    assert arguments[arguments.index("--lora-modules") :][:3] == ["--lora-modules", "a=b", "c=d"]


def test_the_batch_holds_the_pictures_of_all_windows_in_flight() -> None:
    one = card("qwen2.5-vl-7b")
    assert (
        batch_tokens(one, Load(frames=4, width=448, height=448, streams=64)) == 66560
    )  # 4 × 258 × 64, in steps of 1,024
    assert batch_tokens(one, Load(frames=1, width=28, height=28, streams=1)) == 8192
    with pytest.raises(Misconfigured, match="how many tokens"):
        batch_tokens(card("minicpm-v-2.6"), Load(frames=1, width=28, height=28, streams=1))


def test_a_text_model_needs_no_room_for_pictures() -> None:
    assert "--max-num-batched-tokens" not in command(
        card("gpt-oss-120b"), load=Load(frames=4, width=448, height=448, streams=64)
    )


def test_adapters_are_served_beside_the_model() -> None:
    arguments = command(card("qwen2.5-vl-7b"), loras=("soccer=/adapters/soccer",), more=("--seed", "1"))
    assert "--enable-lora" in arguments
    assert value(arguments, "--lora-modules") == "soccer=/adapters/soccer"
    assert arguments[-2:] == ["--seed", "1"]
    with pytest.raises(Misconfigured, match="NAME=PATH"):
        command(card("qwen2.5-vl-7b"), loras=("soccer",))


def test_weights_of_ones_own_are_served_under_the_models_name() -> None:
    arguments = command(card("phi-4-multimodal"), weights="/weights/phi/")
    assert arguments[2] == "/weights/phi/"
    assert value(arguments, "--served-model-name") == "microsoft/Phi-4-multimodal-instruct"
    assert json.loads(value(arguments, "--default-mm-loras")) == {"image": "/weights/phi/vision-lora"}
    with pytest.raises(Misconfigured, match="--weights"):
        command(card("phi-4-multimodal"))


def test_what_vllm_does_not_serve_is_told_with_the_reason() -> None:
    with pytest.raises(Misconfigured, match=r"idefics2-8b.*transformers serve"):
        command(card("idefics2-8b"))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
@pytest.mark.parametrize("name", SERVED)
def test_vllms_own_parser_takes_every_flag(name: str) -> None:
    """In a process of its own: vLLM sets loggers and devices up when it is imported."""
    arguments = command(card(name), weights="/weights", load=_load(card(name)))
    script = (
        "import sys\n"
        "from vllm.entrypoints.cli.serve import ServeSubcommand\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "parser, serve = FlexibleArgumentParser(), ServeSubcommand()\n"
        "serve.subparser_init(parser.add_subparsers())\n"
        "serve.validate(parser.parse_args(sys.argv[1:]))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, *arguments[1:]], capture_output=True, text=True, timeout=100, check=False
    )
    assert told.returncode == 0, told.stderr


def _load(found: Card) -> Load | None:
    counted = found.speak.image_tokens(448, 448) is not None
    return Load(frames=4, width=448, height=448, streams=16) if counted else None
