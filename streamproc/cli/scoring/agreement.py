"""`score agreement`: what several runs or models all saw, some saw, one saw."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli import frame
from streamproc.cli.frame import BusOption, JsonOption, settings
from streamproc.cli.scoring import report
from streamproc.cli.scoring.report import DrawsOption, PlotOption, SeedOption, WithinOption
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.cli.scoring.runs import Seen
    from streamproc.score.spots import Bools, Floats, Ints


class By(StrEnum):
    run = "run"
    model = "model"


def register(app: typer.Typer) -> None:
    app.command("agreement", epilog="Example: streamproc score agreement qwen.json llava.json --within 3")(agreement)


def agreement(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="STREAM|FILE…",
            help="Runs: results_spotting.json or folders of them, `run --out` folders, detections.jsonl, or lists of {time, raw}; "
            "what is no file is a stream of the bus.",
        ),
    ],
    by: Annotated[
        By, typer.Option("--by", help="Whose voices count: each run's, or each model's within them.")
    ] = By.run,
    within: WithinOption = 3.0,
    draws: DrawsOption = 200,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Events found by all, by some, by one; matched in time and label; kappa; per label."""
    report.drawable(plot)
    from streamproc.cli.scoring import runs
    from streamproc.formats.problems import Problems

    problems = Problems()
    streams = [name for name in given if not Path(name).exists()]
    landed = runs.on_bus(settings(bus=bus), streams, problems) if streams else {}
    read = [(n, row) for n in given for row in (landed[n] if n in landed else runs.read(Path(n), problems))]
    if by is By.model:
        names = sorted({model for _, row in read for model in row.looked or row.found_by or (row.model or "unnamed",)})
        read = [(model, row) for _, row in read for model in row.found_by or (row.model or "unnamed",)]
    else:
        names = given
        if len({runs.plainly(name) for name in streams}) == len(streams):  # each is another look at the same thing
            read = [(n, row._replace(stream="") if n in landed else row) for n, row in read]
    voices = [voice for voice, _ in read]
    if len(names) < 2 or len(set(names)) < len(names):
        raise Misconfigured(f"agreement needs two different {by.value}s or more, got {', '.join(names) or 'none'}")
    rows = [row for _, row in read]
    numbered = [names.index(v) for v in voices]
    result = agreed(rows, numbered, names, within_ms=round(1000 * within), draws=draws, seed=seed)
    for stream, name in silent(rows, numbered, names):
        problems.add("stream of which one says nothing, taken as looked at and nothing seen", f"{name}: {stream}")
    result |= {"within_s": within, "problems": problems.plain()}
    report.warn(problems)
    if plot and rows:
        stream, labels = rows[0].stream, list(result["per_label"])
        moments = {
            name: [
                (labels.index(r.label), r.time_ms)
                for r, v in zip(rows, voices, strict=True)
                if v == name and r.stream == stream
            ]
            for name in names
        }
        report.draw(plot, "timeline", moments, names=labels, title=stream)
    frame.emit(report.plain(result)) if as_json else _show(result)


def silent(rows: Sequence[Seen], voices: Sequence[int], names: list[str]) -> list[tuple[str, str]]:
    """(stream, name) of those who say nothing of a stream in which others see something."""
    spoken = {(row.stream, names[voice]) for row, voice in zip(rows, voices, strict=True)}
    streams = sorted({stream for stream, _ in spoken})
    return [(stream or "events", name) for stream in streams for name in names if (stream, name) not in spoken]


def agreed(
    rows: Sequence[Seen], voices: Sequence[int], names: list[str], *, within_ms: int, draws: int, seed: int
) -> dict[str, Any]:
    """The whole document."""
    import numpy as np

    from streamproc.cli.scoring.runs import game_of
    from streamproc.score import agreement as together

    streams, labels = sorted({r.stream for r in rows}), sorted({r.label for r in rows})
    part_of, label_of = ({value: n for n, value in enumerate(values)} for values in (streams, labels))
    seen = together.Sightings(
        run=np.array(voices, np.int64),
        part=np.array([part_of[r.stream] for r in rows], np.int64),
        label=np.array([label_of[r.label] for r in rows], np.int64),
        time_ms=np.array([r.time_ms for r in rows], np.int64),
    )
    groups = together.group(seen, runs=len(names), within_ms=within_ms)
    ends = np.zeros(len(streams), np.int64)
    np.maximum.at(ends, seen.part, seen.time_ms)
    units, unit_of = np.unique([game_of(stream) for stream in streams], return_inverse=True)
    moments = np.zeros(len(units), np.int64)
    np.add.at(moments, unit_of, 1 + np.ceil(ends / max(within_ms, 1000)).astype(np.int64))
    found, unit = groups.found_by, unit_of[groups.part]
    weights = report.drawn(len(units), draws=draws, seed=seed)
    document: dict[str, Any] = {
        "runs": names,
        "events": {name: int(n) for name, n in zip(names, np.bincount(seen.run, minlength=len(names)), strict=True)},
        "streams": len(streams),
        "games": len(units),
        "draws": draws,
        "seed": seed,
        **_counted(found, unit, moments * max(len(labels), 1), weights),
        "kappa_pairs": together.pairwise(found, moments=int(moments.sum()) * max(len(labels), 1)),
        "per_label": {
            label: _counted(found[groups.label == n], unit[groups.label == n], moments, weights)
            for n, label in enumerate(labels)
        },
        "rows": [
            {
                "stream": streams[part],
                "time_ms": time_ms,
                "label": labels[label],
                "found_by": [names[r] for r, row in enumerate(members) if row >= 0],
                "places": [rows[row].place for row in members if row >= 0],
            }
            for part, time_ms, label, members in zip(
                groups.part.tolist(), groups.time_ms.tolist(), groups.label.tolist(), groups.rows.tolist(), strict=True
            )
        ],
    }
    return document


def _counted(found: Bools, unit: Ints, moments: Ints, weights: Floats | None) -> dict[str, Any]:
    import numpy as np

    from streamproc.score import agreement as together

    count, runs = found.sum(axis=1), found.shape[1]
    votes = together.Votes.of(found, unit, moments=moments)
    kappa = float(votes.kappa(np.ones((1, len(moments))))[0])
    return {
        "things": len(found),
        "all": int(np.count_nonzero(count == runs)),
        "some": int(np.count_nonzero((count > 1) & (count < runs))),
        "one": int(np.count_nonzero(count == 1)),
        "kappa": kappa,
        "kappa_interval": None if weights is None else report.ends(votes.kappa(weights), kappa),
    }


def _show(result: dict[str, Any]) -> None:
    rows = [
        [
            label,
            of["things"],
            of["all"],
            of["some"],
            of["one"],
            report.number(of["kappa"]),
            report.between(of["kappa_interval"]),
        ]
        for label, of in [*result["per_label"].items(), ("all labels", result)]
    ]
    frame.table(["label", "seen", "by all", "by some", "by one", "kappa", "95 %"], rows)
    frame.line("")
    for name, n in result["events"].items():
        frame.line(f"{name}: {n} events")
    frame.line(report.told_of_intervals(result["games"], "games or streams", draws=result["draws"]))
