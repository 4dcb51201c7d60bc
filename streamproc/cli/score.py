"""`streamproc score …`: how good results are. The commands stand in `scoring`; each imports the arithmetic when it is run."""

from __future__ import annotations

import typer

from streamproc.cli.scoring import agreement, calibration, dashcam, overdetection, spotting, still, thresholds, windows


def register(app: typer.Typer) -> None:
    score = typer.Typer(
        name="score",
        help="How good results are, what was not looked at, and how far the numbers can be trusted.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for command in (spotting, thresholds, calibration, agreement, windows, overdetection, still, dashcam):
        command.register(score)
    app.add_typer(score)
