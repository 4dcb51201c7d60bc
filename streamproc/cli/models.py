"""`streamproc models`: the cards, one card, serving one with vLLM, and asking a live endpoint what it honours."""

from __future__ import annotations

import os
import re
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated

import typer

from streamproc.cli.frame import Code, JsonOption, emit, line, run, say, settings, table
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.models.card import Card
    from streamproc.models.serve import Load

app = typer.Typer(name="models", help="Which models there are a card of, and how to serve them.", no_args_is_help=True)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A card, or the path of a card of your own.", show_default=False)
]


def register(root: typer.Typer) -> None:
    root.add_typer(app)


@app.command("list", epilog="Example: streamproc models list")
def list_(json: JsonOption = False) -> None:
    """Every model that there is a card of."""
    from streamproc.models.card import cards

    if json:
        emit([_whole(card) for card in cards().values()])
        return
    rows = [
        (name, _where(card), card.speak.media if card.speak.image_limit != 0 else "text", card.about)
        for name, card in cards().items()
    ]
    table(("card", "served by", "sees", "about"), rows)


@app.command(epilog="Example: streamproc models show qwen2.5-vl-7b")
def show(name: NameArgument, json: JsonOption = False) -> None:
    """All that one card says: how the model is served, and how it is spoken to."""
    from streamproc.models.card import card

    found = card(name)
    if json:
        emit(_whole(found))
        return
    line(f"{found.name}: {found.about}")
    said = found.model_dump(exclude_unset=True, exclude={"name", "about", "notes", "sources"})
    flat = [(key, value) for key, value in said.items() if not isinstance(value, dict)]
    flat += [
        (f"{group}.{key}", value)
        for group, values in said.items()
        if isinstance(values, dict)
        for key, value in values.items()
    ]
    for key, value in flat:
        line(f"  {key} = {value}")
    for note in found.notes:
        line(f"  note: {note}")
    for source in found.sources:
        line(f"  from: {source}")


@app.command(
    epilog="Example: streamproc models serve qwen2.5-vl-7b --frames 4 --size 448x448 --streams 16 --dry-run",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": False},
)
def serve(
    context: typer.Context,
    name: NameArgument,
    weights: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Weights on this machine, in place of the card's.")
    ] = None,
    served_name: Annotated[str | None, typer.Option(metavar="NAME", help="What the model is called in calls.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8000,
    frames: Annotated[
        int, typer.Option(min=1, help="Frames in a window; with --streams, for the size of the encoder's cache.")
    ] = 4,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of a frame.")] = "448x448",
    streams: Annotated[int | None, typer.Option(min=1, help="Windows in flight together.")] = None,
    lora: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="An adapter to serve too; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command, and run nothing.")] = False,
) -> None:
    """Serve a card's model with vLLM. What stands behind -- goes to vLLM as it is."""
    from streamproc.models import card as models
    from streamproc.models import serve as serving

    arguments = serving.command(
        models.card(name),
        weights=weights,
        served_name=served_name,
        host=host,
        port=port,
        load=_load(frames, size, streams),
        loras=lora or (),
        more=context.args,
    )
    if dry_run:
        line(serving.shown(arguments))
        return
    say(serving.shown(arguments))
    try:
        os.execvp(arguments[0], arguments)  # vLLM takes our place, with our signals and our exit code
    except FileNotFoundError:
        raise Misconfigured(
            "vLLM is not installed here: pip install 'streamproc[gpu]'; --dry-run prints the command"
        ) from None


@app.command(epilog="Example: streamproc models check qwen2.5-vl-7b@http://gpu1:8000/v1")
def check(
    endpoint: Annotated[
        str,
        typer.Argument(metavar="ENDPOINT", help="NAME, or CARD@URL[,URL…] for replicas.", show_default=False),
    ],
    json: JsonOption = False,
) -> None:
    """Ask a live endpoint what it really honours, and say what to write on the card. Costs some forty short calls."""
    from streamproc.models.card import served
    from streamproc.models.probe import check as probed

    told = settings()
    asked = served(endpoint, told.endpoints, base_url=told.openai.base_url)
    key = {"OPENAI_API_KEY": told.openai.api_key.get_secret_value()} if told.openai.api_key else {}
    found = run(probed(asked, environ={**os.environ, **key}, fresh=token_hex(4)))
    if json:
        emit({"endpoint": asked.name, "replicas": [{"url": url, "findings": said} for url, said in found.items()]})
    else:
        for url, said in found.items():
            line(f"{asked.name} at {url}")
            table(("asked for", "honoured", "seen", "write"), [(f.ability, f.verdict, f.seen, f.write) for f in said])
    if any(f.ability in ("model", "name") and f.verdict != "yes" for said in found.values() for f in said):
        raise typer.Exit(Code.FAILED)


def _load(frames: int, size: str, streams: int | None) -> Load | None:
    from streamproc.models.serve import Load

    if not (found := re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", size)):
        raise Misconfigured(f"size '{size}' is not WIDTHxHEIGHT, like 448x448")
    width, height = int(found[1]), int(found[2])
    if not (width and height):
        raise Misconfigured(f"size '{size}' has nothing in it")
    return Load(frames=frames, width=width, height=height, streams=streams) if streams else None


def _where(card: Card) -> str:
    if card.name == "observer":
        return "built in"
    if card.url is not None:
        return card.url.split("/")[2]
    return "vLLM" if card.serve is not None else "another server"


def _whole(card: Card) -> dict[str, object]:
    return card.model_dump(mode="json", exclude_none=True)
