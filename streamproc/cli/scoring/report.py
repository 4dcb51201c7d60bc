"""How scores are printed and pictures saved. Numbers that are not there (NaN) are null in JSON and a dash for people."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli import frame
from streamproc.errors import Misconfigured
from streamproc.formats.problems import Problems

if TYPE_CHECKING:
    from streamproc.cli.scoring.games import Games
    from streamproc.score.bootstrap import Comparison
    from streamproc.score.spots import Bools, Floats

PlotOption = Annotated[Path | None, typer.Option("--plot", metavar="F", help="Draw it, too: a .png or .svg file.")]
SeedOption = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, help="Of what is drawn by chance: same seed, same numbers.")
]
DrawsOption = Annotated[
    int,
    typer.Option(
        "--draws", metavar="N", min=0, max=100_000, help="Draws for intervals and p values; 0 leaves them out."
    ),
]
WithinOption = Annotated[
    float,
    typer.Option("--within", metavar="S", min=0, max=86_400, help="Seconds to either side within which times agree."),
]


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def between(ends: tuple[float, float] | list[float] | None) -> str:
    return f"[{number(ends[0])}, {number(ends[1])}]" if ends else ""


def with_ends(value: float, ends: list[float] | None, *, signed: bool = False) -> str:
    """A number, and where it lies between."""
    said = f"{value:+.4f}" if signed else number(value)
    return f"{said} {between(ends)}".rstrip()


def plain(value: Any) -> Any:
    """Built-ins for JSON: arrays as lists, NaN as null."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def drawn(units: int, *, draws: int, seed: int) -> Floats | None:
    """(draws, units); None where no draw is wanted, or there is nothing to draw from."""
    from streamproc.score import bootstrap

    return bootstrap.draws(units, count=draws, seed=seed) if draws and units >= bootstrap.ENOUGH else None


def ends(values: Floats, at: float) -> list[float] | None:
    """The interval of a number, from what draws have of it. A draw may have none (NaN): of nothing there is no share."""
    import numpy as np

    from streamproc.score import bootstrap

    there = values[~np.isnan(values)]
    if math.isnan(at) or not len(there):
        return None
    found = bootstrap.interval(there, at=at)
    return [found.low, found.high]


def ends_of_error(games: Games, hit: Bools, *, draws: int, seed: int) -> list[float] | None:
    """The interval of a calibration error, over games."""
    from streamproc.score import calibration

    said = games.predictions
    if (weights := drawn(len(games.names), draws=draws, seed=seed)) is None:
        return None
    found = calibration.errors(said.confidence, hit, said.part // 2, weights)
    return ends(found, calibration.reliability(said.confidence, hit).ece)


def how_drawn(units: int, of: str, *, draws: int, seed: int) -> dict[str, Any]:
    """What intervals are drawn from; stands beside them."""
    return {"level": 0.95, "draws": draws, "seed": seed, "units": units, "of": of}


def told_of_intervals(units: int, of: str, *, draws: int) -> str:
    """The same in words, or why there is none."""
    if not draws:
        return "no intervals: none drawn (--draws 0)"
    if units < 2:
        return f"no intervals: {units} {of}, and drawn from one every draw is the same"
    return f"intervals: 95 % of {draws} draws from {units} {of}"


def compared(found: Comparison) -> dict[str, Any]:
    between = found.interval
    return {
        "difference": found.difference,
        "interval": [between.low, between.high] if between else None,
        "p": found.p,
    }


def warn(problems: Problems) -> None:
    for line in problems.lines():
        frame.say(f"warning: {line}")


def drawable(file: Path | None) -> None:
    """Say that a picture cannot be drawn before the work is done, not after."""
    if file is None:
        return
    if file.suffix not in (".png", ".svg"):
        raise Misconfigured(f"--plot {file}: a picture is a .png or an .svg file")
    if not file.parent.is_dir():
        raise Misconfigured(f"--plot {file}: there is no folder {file.parent}")
    try:
        import matplotlib as mpl
    except ImportError as e:
        raise Misconfigured("--plot needs matplotlib: pip install 'streamproc[plot]'") from e
    mpl.rcParams["svg.hashsalt"] = "streamproc"  # the same picture is the same file


def writable(file: Path | None) -> None:
    """Say that a file cannot be written before the work is done."""
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        what = "that is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise Misconfigured(f"--out {file}: {what}")


def comparable(against: Path | None, draws: int) -> None:
    if against and not draws:
        raise Misconfigured("--against compares by drawing: give --draws more than 0")


def draw(file: Path | None, picture: str, *of: Any, **more: Any) -> None:
    """Save a picture of `score.pictures`, which needs matplotlib and so is imported only here."""
    if file is None:
        return
    from streamproc.score import pictures

    getattr(pictures, picture)(*of, **more).savefig(file, metadata={"Date": None} if file.suffix == ".svg" else {})
    frame.say(f"drawn: {file}")
