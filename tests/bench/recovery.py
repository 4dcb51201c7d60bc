"""Reading models' text: how many answers a second one core reads, and what a million hostile strings do.

Time is that of the thread's own CPU, so that neighbours on the machine do not count. Rounds of all kinds are interleaved.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from statistics import median

from streamproc.models.recovery.events import events
from tests.models.corpus.answers import CUT, PROMPT, SOCCER, WHOLE, WINDOWS, Case, cases
from tests.models.corpus.fuzz import invented, strings

ROUNDS = 9
FUZZED = 1_000_000
SLOWEST_MS = 10.0
FENCED = "fenced JSON"
SOUND = ("plain JSON", "indented JSON", "JSON without ASCII", "wrapped in events", "fenced")


def run() -> Iterator[tuple[str, float, float | None, bool | None]]:
    yield from _speed()
    yield from _corpus()
    yield from _fuzz()


def _speed() -> Iterator[tuple[str, float, float | None, bool | None]]:
    kinds = {kind: [c for c in cases() if c.kind == kind] for kind in (*WHOLE, *CUT)}
    rounds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, answers in kinds.items():
            rounds[kind].append(_a_second(answers, repeat=40 if kind == FENCED else 8))
    rate = {kind: median(said) for kind, said in rounds.items()}
    yield "fenced JSON, answers a second", rate[FENCED], 50_000, rate[FENCED] >= 50_000
    broken = {kind: r for kind, r in rate.items() if not kind.startswith(SOUND)}
    slowest = min(broken, key=lambda k: broken[k])
    yield "broken kinds together, answers a second", _together(broken), 5_000, _together(broken) >= 5_000
    yield f"the slowest broken kind ({slowest}), answers a second", broken[slowest], 5_000, broken[slowest] >= 5_000


def _a_second(answers: list[Case], *, repeat: int) -> float:
    began = time.thread_time()
    for _ in range(repeat):
        for case in answers:
            events(case.raw, SOCCER, prompt=case.prompt, cut=case.cut)
    return repeat * len(WINDOWS) / (time.thread_time() - began)


def _together(rates: dict[str, float]) -> float:
    """As many of each."""
    return len(rates) / sum(1 / r for r in rates.values())


def _corpus() -> Iterator[tuple[str, float, float | None, bool | None]]:
    answers = list(cases())
    right = 0
    for case in answers:
        read = events(case.raw, SOCCER, prompt=case.prompt, cut=case.cut)
        right += (read.outcome, read.events) == (case.outcome, case.events)
    yield "labelled answers", len(answers), 500, len(answers) >= 500
    yield "labelled answers read as labelled, share", right / len(answers), 1, right == len(answers)


def _undisturbed(text: str, took: float) -> float:
    """What reading takes where nobody steps in: a string that is slow to read is slow every time."""
    for _ in range(3 if took * 1000 > SLOWEST_MS else 0):
        began = time.thread_time()
        events(text, SOCCER, prompt=PROMPT)
        took = min(took, time.thread_time() - began)
    return took


def _fuzz() -> Iterator[tuple[str, float, float | None, bool | None]]:
    crashed = made_up = 0
    slowest = 0.0
    gc.collect()
    gc.freeze()  # the corpus is no garbage; a collector walking over it would be timed as reading
    for text in strings(2026, FUZZED):
        began = time.thread_time()
        try:
            read = events(text, SOCCER, prompt=PROMPT)
        except Exception as e:  # noqa: BLE001  # the bench counts whatever it is that should not come
            crashed += 1
            print(f"{type(e).__name__}: {e} for {text[:200]!r}")
            continue
        slowest = max(slowest, _undisturbed(text, time.thread_time() - began))
        if read.events and (what := invented(text, read)):
            made_up += 1
            print(f"invented {what} for {text[:200]!r}")
    gc.unfreeze()
    yield "fuzzed strings", FUZZED, 1_000_000, FUZZED >= 1_000_000
    yield "fuzzed strings that crash", crashed, 0, crashed == 0
    yield "fuzzed strings with an event that is not in the text", made_up, 0, made_up == 0
    yield "the slowest fuzzed string, ms of CPU", slowest * 1000, SLOWEST_MS, slowest * 1000 <= SLOWEST_MS
