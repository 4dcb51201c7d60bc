"""`score overdetection`: signs that events were made up, each with the rows that show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli import frame
from streamproc.cli.frame import JsonOption
from streamproc.cli.scoring import report
from streamproc.cli.scoring.report import DrawsOption, PlotOption, SeedOption
from streamproc.formats import soccernet

if TYPE_CHECKING:
    from streamproc.cli.scoring.runs import Seen
    from streamproc.formats.problems import Problems

USUAL_PER_MINUTE = 2.0
"""100 events a half: the upper end of what a match has."""
ROWS = 10


def register(app: typer.Typer) -> None:
    app.command("overdetection", epilog="Example: streamproc score overdetection --predictions out --labels labels")(
        overdetection
    )


def overdetection(
    predictions: Annotated[
        Path,
        typer.Option(
            "--predictions",
            metavar="PATH",
            help="A file or folder of results, in any form that `score agreement` takes.",
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="DIR", help="The truth as reference: GAME/Labels-v2.json below it."),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option("--against", metavar="PATH", help="Other models' results as reference.")
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(
            "--prior", metavar="N", min=0, help="Usual events a minute; the reference's own by default, else 2."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", metavar="M", min=0, help="How long it all is; to the last event of each stream by default."
        ),
    ] = None,
    still: Annotated[
        Path | None,
        typer.Option("--still", metavar="F", help="Where nothing moves: a file that `score still` writes."),
    ] = None,
    draws: DrawsOption = 200,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Events a minute against what is usual, leanings of labels, teams and confidences, events where nothing moves, repeats."""
    report.drawable(plot)
    from streamproc.cli.scoring import runs
    from streamproc.errors import Misconfigured
    from streamproc.formats.problems import Problems

    if labels and against:
        raise Misconfigured("one reference at a time: --labels or --against")
    if minutes == 0:
        raise Misconfigured("--minutes 0: in no time there is no rate")
    problems = Problems()
    said = runs.read(predictions, problems)
    reference = _reference(labels, against or [], problems)
    length = minutes if minutes is not None else _minutes(said)
    usual = prior if prior is not None else _usual(reference, length if minutes is not None else None)
    result = signs(said, reference, minutes=length, prior=usual)
    result |= _between(said, result, draws=draws, seed=seed) if minutes is None else {"intervals": None}
    result["still"] = _in_still(said, still, problems) if still is not None else None
    result["problems"] = problems.plain()
    report.warn(problems)
    if plot:
        report.draw(plot, "crowding", _by_minute(said), prior=usual)
    frame.emit(report.plain(result)) if as_json else _show(result)


def signs(said: Sequence[Seen], reference: Sequence[Seen], *, minutes: float, prior: float) -> dict[str, Any]:
    """All that can be told without looking at pictures."""
    import numpy as np

    from streamproc.score import overdetection as signs

    streams = sorted({row.stream for row in said})
    part = {stream: n for n, stream in enumerate(streams)}
    rate = signs.rate([(part[r.stream], r.time_ms) for r in said], minutes=minutes, prior=prior)
    minute_of = _places(said, lambda r: (r.stream, r.time_ms // 60_000))
    document: dict[str, Any] = {
        "events": len(said),
        "minutes": minutes,
        "per_minute": rate.per_minute,
        "prior": prior,
        "times_prior": rate.times,
        "busiest": [
            {
                "stream": streams[number],
                "minute": minute,
                "events": n,
                "places": minute_of[streams[number], minute],
            }
            for number, minute, n in rate.busiest
        ],
    }
    for name in ("label", "team"):
        ours, theirs = ([str(v) for r in rows if (v := getattr(r, name)) is not None] for rows in (said, reference))
        leanings, places = signs.leanings(ours, theirs), _places(said, attrgetter(name))
        document[f"{name}s"] = {
            "distance": signs.distance(leanings) if ours and theirs else None,
            "values": [
                {
                    "value": row.value,
                    "count": row.count,
                    "share": row.share,
                    "reference": row.reference if theirs else None,
                }
                | {"places": places.get(row.value, [])}
                for row in leanings
            ],
        }
    for name, rows in (("confidences", said), ("reference_confidences", reference)):
        places = _places(rows, attrgetter("confidence"))
        told = signs.confidences(np.array([r.confidence for r in rows if r.confidence is not None], np.float64))
        document[name] = {
            "distinct": told.distinct,
            "within_0.8_0.95": told.high,
            "commonest": [{"value": value, "count": n, "places": places[value]} for value, n in told.commonest],
        }
    repeats = signs.repeated([row.text for row in said])
    document["repeated"] = [
        {"text": text, "count": len(rows), "places": [said[row].place for row in rows[:ROWS]]}
        for text, rows in repeats.items()
    ]
    return document


def _places(rows: Sequence[Seen], key: Callable[[Seen], Any]) -> dict[Any, list[str]]:
    """Key → the first rows that have it."""
    found: dict[Any, list[str]] = {}
    for row in rows:
        shown = found.setdefault(key(row), [])
        if len(shown) < ROWS:
            shown.append(row.place)
    return found


def _reference(labels: Path | None, against: Sequence[Path], problems: Any) -> list[Seen]:
    from streamproc.cli.scoring import games as folders
    from streamproc.cli.scoring import runs

    if labels is None:
        return [row for path in against for row in runs.read(path, problems)]
    names, true = folders.labelled(labels, problems=problems)
    return [
        runs.Seen(
            f"{names[part // 2]}/{spot.half}",
            spot.time_ms,
            spot.label,
            _team(spot.team),
            None,
            None,
            None,
            f"{names[part // 2]} label",
        )
        for part, spot in folders.rows(true)
    ]


def _team(team: str | None) -> str | None:
    return None if team == "not applicable" else team


def _minutes(rows: Sequence[Seen]) -> float:
    ends: dict[str, int] = {}
    for row in rows:
        ends[row.stream] = max(ends.get(row.stream, 0), row.time_ms)
    return sum(ends.values()) / 60_000


def _between(said: Sequence[Seen], result: dict[str, Any], *, draws: int, seed: int) -> dict[str, Any]:
    """The interval of the rate, over games; not where somebody says how long it all is, and not how long each is."""
    import numpy as np

    from streamproc.cli.scoring.runs import game_of

    by_game: dict[str, list[Seen]] = {}
    for row in said:
        by_game.setdefault(game_of(row.stream), []).append(row)
    found: dict[str, Any] = {"games": len(by_game), "draws": draws, "seed": seed, "intervals": None}
    if (weights := report.drawn(len(by_game), draws=draws, seed=seed)) is not None:
        events = np.array([len(rows) for rows in by_game.values()], np.float64)
        minutes = np.array([_minutes(rows) for rows in by_game.values()])
        with np.errstate(invalid="ignore", divide="ignore"):
            rates = (weights @ events) / (weights @ minutes)
        ends = report.ends(rates[np.isfinite(rates)], result["per_minute"])
        prior = result["prior"]
        found["intervals"] = {
            "per_minute": ends,
            "times_prior": [end / prior for end in ends] if ends and prior else None,
        }
    return found


def _usual(reference: Sequence[Seen], minutes: float | None) -> float:
    length = minutes or _minutes(reference)
    return len(reference) / length if reference and length else USUAL_PER_MINUTE


def _in_still(said: Sequence[Seen], file: Path, problems: Problems) -> dict[str, Any]:
    import msgspec

    from streamproc.errors import Misconfigured, Rejected
    from streamproc.ranges import Ranges

    try:
        stretches = msgspec.json.decode(file.read_bytes(), type=dict[str, list[tuple[int, int]]])
    except OSError as e:
        raise Misconfigured(f"--still {file} cannot be read: {e.strerror or e}") from e
    except (msgspec.DecodeError, RecursionError) as e:
        raise Rejected(f"{file}: {e}") from e
    for stream, pairs in stretches.items():
        for lo, hi in pairs:
            if not 0 <= lo <= hi:
                raise Rejected(f"{file}: {stream} has a stretch from {lo} to {hi} ms")
    still = {_place(stream): Ranges(pairs) for stream, pairs in stretches.items()}
    if len(still) < len(stretches):
        raise Rejected(f"{file}: two streams of one half of a game; overdetection looks at one run at a time")
    if len(still) == 1 and {row.stream for row in said} == {""}:  # a file that does not say of which stream it speaks
        still = {"": next(iter(still.values()))}
    for stream in sorted({row.stream for row in said if _place(row.stream) not in still}):
        problems.add("stream of which --still says nothing", f"{file}: {stream or 'no name'}")
    rows = [row for row in said if (of := still.get(_place(row.stream))) and of.has(row.time_ms, row.time_ms + 1)]
    return {
        "events": len(rows),
        "seconds": sum(s.total for s in still.values()) / 1000,
        "rows": [row.plain() for row in rows],
    }


def _place(stream: str) -> str:
    """GAME/1_720p is what SoccerNet's files know as half 1 of GAME."""
    half = soccernet.half_of(stream)
    return f"{half[0]}/{half[1]}" if half else stream.partition("@")[0]


def _by_minute(said: Sequence[Seen]) -> dict[str, Any]:
    import numpy as np

    streams: dict[str, list[int]] = {}
    for row in said:
        streams.setdefault(row.stream, []).append(row.time_ms // 60_000)
    return {stream or "events": np.bincount(found) for stream, found in sorted(streams.items())[:ROWS]}


def _show(result: dict[str, Any]) -> None:
    ends = (result["intervals"] or {}).get("per_minute")
    told = f"{report.number(result['per_minute'], 2)} {report.between(ends)}".rstrip()
    frame.line(
        f"{result['events']} events in {result['minutes']:.1f} minutes: {told} a minute, "
        f"{report.number(result['times_prior'], 1)} times the usual {result['prior']:.2f}"
    )
    if "games" in result:
        frame.line(report.told_of_intervals(result["games"], "games or streams", draws=result["draws"]))
    else:
        frame.line("no intervals: --minutes says how long all is, not how long each is")
    frame.table(
        ["busiest: stream", "minute", "events"], [[b["stream"], b["minute"], b["events"]] for b in result["busiest"]]
    )
    for name in ("labels", "teams"):
        of = result[name]
        frame.line("")
        frame.line(f"{name}: distance from the reference {report.number(of['distance'])}")
        rows = [
            [
                v["value"],
                v["count"],
                report.number(v["share"], 3),
                report.number(v["reference"], 3),
                v["places"][0] if v["places"] else "",
            ]
            for v in of["values"]
        ]
        frame.table([name[:-1], "events", "share", "reference", "first"], rows)
    told = result["confidences"]
    frame.line("")
    frame.line(f"confidences: {told['distinct']} distinct, {100 * told['within_0.8_0.95']:.0f} % between 0.8 and 0.95")
    frame.table(
        ["confidence", "events", "first"], [[c["value"], c["count"], c["places"][0]] for c in told["commonest"]]
    )
    if result["still"]:
        frame.line(f"\nwhere nothing moves: {result['still']['events']} events in {result['still']['seconds']:.0f} s")
        for row in result["still"]["rows"][:ROWS]:
            frame.line(f"  {row['label']} at {row['time_ms'] / 1000:.1f} s: {row['place']}")
    if result["repeated"]:
        frame.line("")
        frame.table(
            ["times", "text", "first"],
            [[r["count"], r["text"][:80], r["places"][0]] for r in result["repeated"][:ROWS]],
        )
