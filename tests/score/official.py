"""The official SoccerNet evaluation, as an oracle: games as files, its own `evaluate` over them. And made-up games."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamproc.formats.problems import Problems
from streamproc.formats.soccernet import (
    LABELS,
    LABELS_FILE,
    PREDICTIONS_FILE,
    Spot,
    read_labels,
    read_predictions,
    write_labels,
    write_predictions,
)
from streamproc.score.spots import Predictions, Truth

Games = Mapping[str, tuple[Sequence[Spot], Sequence[Spot]]]
"""Name → (labels, predictions)."""


class _Quick:
    """numpy, but for `nan_to_num` of one number, in which the official code spends three quarters of its time."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def nan_to_num(number: float) -> float:
        return number if math.isfinite(number) else float(np.nan_to_num(number))


def evaluate(folder: Path, *, metric: str, labels: Sequence[str] = LABELS, quick: bool = False) -> dict[str, Any]:
    """What the official package says of the games in a folder. `quick` is for a thousand of them: same code, same numbers."""
    os.environ["TQDM_DISABLE"] = "1"
    before = np.geterr()
    package = pytest.importorskip("SoccerNet.Evaluation.ActionSpotting")
    np.seterr(**before)  # its import switches warnings off for everyone
    package.np = _Quick() if quick else np
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it never closes a file
        result: dict[str, Any] = package.evaluate(
            str(folder / "labels"),
            str(folder / "predictions"),
            prediction_file=PREDICTIONS_FILE,
            label_files=LABELS_FILE,
            dataset=None,
            version=2,
            metric=metric,
            EVENT_DICTIONARY={name: number for number, name in enumerate(labels)},
        )
    return result


def write(folder: Path, games: Games) -> None:
    for game, (labels, predictions) in games.items():
        for kind, name, data in (
            ("labels", LABELS_FILE, write_labels(game, labels)),
            ("predictions", PREDICTIONS_FILE, write_predictions(game, predictions)),
        ):
            path = folder / kind / game / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def columns(folder: Path, games: Sequence[str]) -> tuple[Truth, Predictions]:
    """The same files through our readers."""
    number = {name: n for n, name in enumerate(LABELS)}
    problems, truth, predicted = Problems(), [], []
    for g, game in enumerate(games):
        path = folder / "labels" / game / LABELS_FILE
        for s in read_labels(path.read_bytes(), file=str(path), problems=problems):
            truth.append((2 * g + s.half - 1, number[s.label], s.time_ms, s.shown))
        path = folder / "predictions" / game / PREDICTIONS_FILE
        for s in read_predictions(path.read_bytes(), file=str(path), problems=problems):
            predicted.append((2 * g + s.half - 1, number[s.label], s.time_ms, s.confidence or 0.0))
    return Truth.of(truth), Predictions.of(predicted)


def made_up(seed: int, *, games: int, predictions: int, labels: int = 220) -> dict[str, tuple[list[Spot], list[Spot]]]:
    """Games as they are: frequent and rare classes, some labels unshown, predictions near labels and elsewhere."""
    random = np.random.default_rng(seed)
    share = random.dirichlet(np.linspace(0.2, 4, len(LABELS)))
    result = {}
    for game in range(games):
        truth = [
            Spot(
                half=int(random.integers(1, 3)),
                time_ms=int(random.integers(0, 47 * 60_000)),
                label=LABELS[int(random.choice(len(LABELS), p=share))],
                shown=bool(random.random() < 0.85),
            )
            for _ in range(labels)
        ]
        said = []
        for _ in range(predictions):
            if random.random() < 0.5:
                near = truth[int(random.integers(len(truth)))]
                at, half, label = near.time_ms + int(random.normal(0, 6000)), near.half, near.label
            else:
                at, half = int(random.integers(0, 47 * 60_000)), int(random.integers(1, 3))
                label = LABELS[int(random.integers(len(LABELS)))]
            confidence = round(float(random.beta(4, 2)), 3)
            said.append(Spot(half=half, time_ms=max(at, 0), label=label, confidence=confidence))
        result[f"league/season/game {game:03d}"] = (truth, said)
    return result
