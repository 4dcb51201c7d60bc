"""Streams with pictures for stages that look at windows: on the real runner, a bus in memory, in virtual time or real."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import simplejpeg
from msgspec.structs import replace

from streamproc import wire
from streamproc.messages import Frame, Source, Window
from streamproc.models.card import served
from streamproc.models.observer import Observer, Settings, running
from streamproc.models.opening import model_of
from streamproc.models.pool import Pool
from streamproc.models.transport import AiohttpTransport
from streamproc.runner.look import source_key
from tests.runner.rig import Rig
from tests.sim import toys

Colour = tuple[int, int, int]
GREY, RED, YELLOW, WHITE = (90, 90, 90), (220, 20, 20), (230, 210, 20), (250, 250, 250)


@cache
def picture(colour: Colour = GREY, patch: Colour | None = None, *, larger: int = 1) -> bytes:
    pixels = np.full((64 * larger, 96 * larger, 3), colour, np.uint8)
    if patch is not None:
        pixels[20 * larger : 44 * larger, 30 * larger : 60 * larger] = patch
    return bytes(simplejpeg.encode_jpeg(pixels, quality=90))


def task(name: str, **sections: Any) -> dict[str, Any]:
    """A task that ships, with a model named for each of its stages, and more or other sections; None takes one away."""
    said = tomllib.loads((resources.files("streamproc") / "tasks" / f"{name}.toml").read_text())
    for stage, model in (("context", {"model": "m"}), ("caption", {"model": "m"}), ("detect", {"models": ["m"]})):
        if stage in said:
            said[stage] = said[stage] | model
    for section, options in sections.items():
        said[section] = said.get(section, {}) | options if isinstance(options, dict) else options
    return {section: options for section, options in said.items() if options is not None}


def window(of: Source, index: int, *shown: bytes, length_s: int = 4, **fields: Any) -> Window:
    """4 s every 2 s, as the toys' grid has it; a picture a second, the same in every window that it stands in."""
    start_ms = of.grid.starts_ms(index)
    times = range(start_ms, start_ms + length_s * 1000, 1000)
    pictures = [*shown, *[picture()] * len(times)][: len(times)]
    whole: dict[str, Any] = {
        "start_ms": start_ms,
        "end_ms": start_ms + length_s * 1000,
        "frames": tuple(Frame(t_ms=t, frame=1 + t // 1000, jpeg=j) for t, j in zip(times, pictures, strict=True)),
        "clips": ((0, 1), (2, 3)),
        "width": 96,
        "height": 64,
    }
    return Window.of(toys.window(of, index, index + 1, index + 2), **(whole | fields))


class Watching(Rig):
    """`stream` and `show`: what is looked at. `said(topic)`: what came of it."""

    @classmethod
    def of(cls, partitions: int = 2) -> Watching:
        return cls(Rig.of(partitions).log)

    def stream(self, task: Mapping[str, Any], *services: str, name: str = "m", **options: Any) -> Source:
        grid = options.pop("grid", toys.GRID)
        made = toys.source(name, services=("decode", *services), count=0, **options)
        made = replace(made, task=dict(task), grid=grid)
        self.log.put(made, sub=source_key(name, made.generation, made.revision).split("\0")[1:])
        return made

    def show(self, of: Source, *indexes: int, **fields: Any) -> None:
        self.put(*(window(of, i, **fields) for i in indexes))

    def gap(self, of: Source, index: int, until: int, reason: str = "missing", outcome: str = "skipped") -> None:
        start_ms, end_ms = of.grid.starts_ms(index), of.grid.starts_ms(until)
        fields: dict[str, Any] = {
            "start_ms": start_ms,
            "end_ms": end_ms,
            "outcome": outcome,
            "reason": reason,
            "frames": (),
            "clips": (),
        }
        self.put(window(of, index, **fields, until_index=until if until > index + 1 else None, width=0, height=0))

    def end(self, of: Source, count: int) -> None:
        at_ms = of.grid.starts_ms(count)
        self.put(window(of, count, start_ms=at_ms, end_ms=at_ms, frames=(), clips=(), count=count, width=0, height=0))

    def put(self, *windows: Window) -> None:
        said = []
        for made in windows:
            identity = f"decode/decode/{made.stream}/{made.generation}/{made.index}"
            whole = replace(made, id=identity, service="decode", root="decode")
            said.append(wire.encode(whole, partitions=self.log.partitions, time=""))
        self.log.append(said)

    def in_order(self, name: str) -> list[Any]:
        return sorted(self.records(name), key=lambda r: (r.stream, r.generation, r.index))

    async def come(self, name: str, count: int) -> list[Any]:
        """The records of a topic, once there are so many."""
        await self.until(lambda: len(self.records(name)) >= count)
        found = self.in_order(name)
        assert len(found) == count, f"{len(found)} where {count} were waited for"
        return found


@asynccontextmanager
async def observed(
    name: str = "m", *, card: str = "observer", settings: Settings | None = None
) -> AsyncIterator[tuple[Pool, Observer]]:
    """A pool whose one model is the observer, over real HTTP, spoken to as a card says."""
    async with running(settings) as (url, observer), AiohttpTransport() as transport:
        there = dataclasses.replace(served(f"{card}@{url}"), name=name)
        pool = Pool([model_of(there, environ={}, transport=transport)])
        try:
            yield pool, observer
        finally:
            pool.close()
