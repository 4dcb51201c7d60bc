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
    from streamproc.score.spots import Bools

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


def plain(value: Any) -> Any:
    """Built-ins for JSON: arrays as lists, NaN as null."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def ends_of_error(games: Games, hit: Bools, *, draws: int, seed: int) -> list[float] | None:
    """The interval of a calibration error, over games."""
    import numpy as np

    from streamproc.score import bootstrap, calibration

    said = games.predictions
    if not draws or not len(said):
        return None
    weights = bootstrap.draws(len(games.names), count=draws, seed=seed)
    found = calibration.errors(said.confidence, hit, said.part // 2, weights)
    found = found[~np.isnan(found)]  # a draw of games without predictions has no error
    if not len(found):
        return None
    ends = bootstrap.interval(found, at=calibration.reliability(said.confidence, hit).ece)
    return [ends.low, ends.high]


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
