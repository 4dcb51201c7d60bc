"""`streamproc observer`: the built-in server without AI, by itself, for whoever wants to look at it or point a client there."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from streamproc.cli.frame import line, say


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: streamproc observer --port 8000")(observer)


def observer(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0: any that is free.")] = 8000,
    seconds: Annotated[float, typer.Option(min=0, help="How long each answer takes at the least.")] = 0.0,
) -> None:
    """Serve OpenAI's chat API without AI: it measures motion, colour, cuts and blobs, and answers by them."""
    from streamproc.models.observer import Settings, running

    async def serve() -> None:
        async with running(Settings(seconds=seconds), host=host, port=port) as (url, _):
            line(url)
            say("Ctrl-C ends it. Name it as observer@" + url)
            await asyncio.Event().wait()

    asyncio.run(serve())
