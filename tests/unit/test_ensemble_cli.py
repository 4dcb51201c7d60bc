"""`streamproc ensemble`: submissions into one, by each rule; what a model answered is asked once, over calls and kills."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import pytest

from streamproc.cli import build
from streamproc.cli.frame import exit_code
from streamproc.formats import submission
from streamproc.formats.submission import COLUMNS, Clip
from streamproc.models.observer import Observer, Settings, running

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "2coool"
real = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the real submissions are not here")

CLIP = Clip(
    video="0",
    start_frame=431,
    incident=0,
    severity="0. No Crash",
    ego=0,
    label="vehicle overtakes",
    cyclists=0,
    animals=0,
    pedestrians=0,
    vehicles=1,
    before="The car nears a crossing.",
    reason="A van cuts in from the right.",
)
HOLE = replace(CLIP, start_frame=1, incident=-1, label="unknown", vehicles=0, reason="Nothing is seen.")


@dataclass(frozen=True)
class Told:
    code: int
    stdout: str
    stderr: str


Ensemble = Callable[..., Told]


@pytest.fixture
def ensemble(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ensemble:
    """The command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Told:
        code = exit_code(build(), ["ensemble", *map(str, arguments)])
        return Told(code, *capfd.readouterr())

    return call


@contextmanager
def observing(settings: Settings | None = None) -> Iterator[tuple[str, Observer]]:
    """An observer beside the command, which has a loop of its own."""
    loop, there, end = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[tuple[str, Observer]] = []

    async def serve() -> None:
        async with running(settings) as both:
            found.append(both)
            there.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert there.wait(30)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
        loop.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def written(name: str, *clips: Clip) -> Path:
    Path(name).write_bytes(submission.write(clips))
    return Path(name)


def clips(name: str = "out.csv") -> list[Clip]:
    return submission.read(Path(name).read_bytes(), file=name)


def numbered(*like: Clip) -> list[Clip]:
    return [replace(clip, video=str(number)) for number, clip in enumerate(like)]


# fill and vote ------------------------------------------------------------------------------------------------------


def test_fill_takes_the_rows_of_the_first_file_and_their_holes_from_the_next(ensemble: Ensemble) -> None:
    other = replace(CLIP, start_frame=12, reason="A dog runs.")
    first = written("first.csv", *numbered(HOLE, CLIP, HOLE, HOLE))
    second = written("second.csv", *numbered(other, other, HOLE)[::-1])
    third = written("third.csv", *numbered(CLIP, CLIP, CLIP, HOLE), replace(CLIP, video="extra"))
    told = ensemble("--rule", "fill", first, second, third, "--out", "out.csv")
    assert told.code == 0, told.stderr
    assert [c.video for c in clips()] == ["0", "1", "2", "3"]
    assert [c.reason for c in clips()] == [other.reason, CLIP.reason, CLIP.reason, HOLE.reason]
    assert "second.csv lacks 1 of 4 clips, the first of them 3" in told.stderr
    assert "third.csv has 1 clips that first.csv does not have" in told.stderr


@real
def test_fill_gives_the_merge_that_the_makers_of_two_real_submissions_made(ensemble: Ensemble) -> None:
    sample, full = next(FIXTURES.glob("exp005_*")), next(FIXTURES.glob("exp004_and_*"))
    assert ensemble("--rule", "fill", sample, full, "--out", "out.csv").code == 0
    made, base = (submission.read(f.read_bytes(), file="f") for f in (Path("out.csv"), next(FIXTURES.glob("2025*"))))
    assert [c.video for c in made] == [c.video for c in base]
    assert [one.video for one, other in zip(made, base, strict=True) if one != other] == ["313"]


def test_vote_decides_each_cell_by_its_kind(ensemble: Ensemble) -> None:
    other = replace(CLIP, start_frame=12, incident=1, vehicles=4, reason="A van cuts in from the right lane.")
    odd = replace(HOLE, label="car hits barrier", vehicles=3, reason="Rain.", before="Night.")
    files = [written(f"{n}.csv", replace(c, video="7")) for n, c in enumerate((CLIP, other, odd))]
    assert ensemble("--rule", "vote", *files, "--out", "out.csv").code == 0
    (one,) = clips()
    assert (one.video, one.start_frame, one.incident, one.label, one.vehicles) == ("7", 1, -1, "vehicle overtakes", 3)
    assert (one.before, one.reason) == ("Night.", "Rain."), "of the file that agrees most with what was decided"


@pytest.mark.parametrize("rule", ["vote", "fill"])
def test_the_same_call_gives_the_same_bytes(ensemble: Ensemble, rule: str) -> None:
    files = [written("a.csv", *numbered(CLIP, HOLE)), written("b.csv", *numbered(HOLE, CLIP))]
    assert ensemble("--rule", rule, *files, "--out", "one.csv").code == 0
    assert ensemble("--rule", rule, *files, "--out", "two.csv").code == 0
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()


@pytest.mark.parametrize("rule", ["vote", "fill", "cluster"])
def test_sentences_that_are_empty_everywhere_stay_empty(ensemble: Ensemble, rule: str) -> None:
    files = [written(f"{n}.csv", replace(CLIP, before="", reason="")) for n in range(3)]
    assert ensemble("--rule", rule, *files, "--out", "out.csv").code in (0, 3)
    assert clips() == [replace(CLIP, before="", reason="")]


# cluster ------------------------------------------------------------------------------------------------------------

BASE = replace(CLIP, severity="1. Ego-car collided but did not stop", animals=5)


ALL = ("0.csv", "1.csv", "2.csv")


def three(count: int = 2) -> Sequence[Path]:
    """The observer takes the first line of each."""
    like = [CLIP, replace(CLIP, start_frame=12, animals=2), replace(CLIP, start_frame=12, animals=2, before="Rain.")]
    return [written(name, *numbered(*[clip] * count)) for name, clip in zip(ALL, like, strict=True)]


def test_cluster_decides_frame_and_sentences_and_the_base_or_the_most_frequent_value_the_rest(
    ensemble: Ensemble,
) -> None:
    told = ensemble("--rule", "cluster", *three(), "--out", "out.csv", "--json")
    assert told.code == 0, told.stderr
    assert json.loads(told.stdout) == {
        "rule": "cluster",
        "files": 3,
        "clips": 2,
        "out": "out.csv",
        "kept": 0,
        "answered": 2,
        "undecided": 0,
    }
    assert "observer" in told.stderr, "whoever is asked where nobody is named is said loudly"
    assert [(c.start_frame, c.animals, c.before) for c in clips()] == [(431, 2, CLIP.before)] * 2
    base = written("base.csv", *numbered(BASE))
    assert ensemble("--rule", "cluster", *three(), "--base", base, "--out", "out.csv").code == 0
    assert [(c.severity, c.animals) for c in clips()] == [(BASE.severity, 5), (CLIP.severity, 2)], "it lacks the second"


def test_a_second_call_asks_nobody_for_what_was_answered(ensemble: Ensemble) -> None:
    with observing() as (url, observer):

        def call() -> Told:
            return ensemble("--rule", "cluster", *ALL, "--out", "out.csv", "--model", f"observer@{url}")

        three(5)
        assert call().code == 0
        made = Path("out.csv").read_bytes()
        assert observer.calls == 5
        Path("out.csv").unlink()
        assert call().code == 0
        assert (Path("out.csv").read_bytes(), observer.calls) == (made, 5)
        written("0.csv", *numbered(CLIP, CLIP, replace(CLIP, reason="A dog runs."), CLIP, CLIP))
        assert call().code == 0
        assert observer.calls == 6, "other inputs are another question"
        assert clips()[2].reason == "A dog runs."


def test_after_a_kill_a_call_goes_on_and_asks_again_only_for_what_was_under_way(ensemble: Ensemble) -> None:
    count, answers = 300, Path("out.csv.answers.jsonl")
    three(count)
    with observing(Settings(seconds=0.02)) as (url, observer):
        command = ("ensemble", "--rule", "cluster", *ALL, "--out", "out.csv", "--model", f"observer@{url}")
        with subprocess.Popen([sys.executable, "-m", "streamproc", *command], stderr=subprocess.DEVNULL) as process:
            until(lambda: observer.calls >= 100)
            process.kill()
        assert not Path("out.csv").exists()
        with answers.open("ab") as file:
            file.write(b'{"video":"99","ques')  # as a kill in the middle of a line leaves it
        until(lambda: not observer.under_way)
        asked, kept = observer.calls, answers.read_bytes().count(b"\n")
        assert 0 < kept < count
        told = ensemble(*command[1:], "--json")
        assert (told.code, json.loads(told.stdout)["kept"]) == (0, kept)
        assert observer.calls - asked == count - kept
    assert len(clips()) == count


def test_ctrl_c_keeps_what_was_answered_and_says_no_more_than_that(ensemble: Ensemble) -> None:
    three(300)
    with observing(Settings(seconds=0.05)) as (url, observer):
        command = ("ensemble", "--rule", "cluster", *ALL, "--out", "out.csv", "--model", f"observer@{url}")
        arguments = [sys.executable, "-m", "streamproc", *command]
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
            until(lambda: observer.calls >= 100)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (130, "interrupted\n")
        assert Path("out.csv.answers.jsonl").read_bytes().count(b"\n") > 0
        assert not Path("out.csv").exists()


def test_what_could_not_be_read_is_asked_again_by_the_next_call(ensemble: Ensemble) -> None:
    three()
    with observing(Settings(honours=frozenset({"max_tokens"}))) as (url, _):  # no schema, and words of its own
        told = ensemble("--rule", "cluster", *ALL, "--out", "out.csv", "--model", f"observer@{url}")
    assert told.code == 3
    assert "2 clips have no answer that could be read" in told.stderr
    assert [(c.start_frame, c.before) for c in clips()] == [(12, CLIP.before)] * 2, "the most frequent frame"
    assert ensemble("--rule", "cluster", *ALL, "--out", "out.csv").code == 0
    assert clips()[0].start_frame == 431


@real
def test_the_sentences_of_real_submissions_joined_have_at_most_thirty_words(ensemble: Ensemble) -> None:
    files = sorted(FIXTURES.glob("*.csv"))
    told = ensemble("--rule", "cluster", *files, "--base", files[0], "--out", "out.csv")
    assert told.code == 0, told.stderr
    inputs = [{c.video: c for c in submission.read(f.read_bytes(), file=f.name)} for f in files]
    for clip in clips():
        theirs = [one[clip.video] for one in inputs]
        assert clip.start_frame in {c.start_frame for c in theirs}
        assert len(f"{clip.before} {clip.reason}".split()) <= 30, clip
        assert astuple(clip)[2:10] == astuple(inputs[0][clip.video])[2:10]


def test_an_endpoint_that_is_not_there_ends_the_call_before_anything_is_asked(ensemble: Ensemble) -> None:
    told = ensemble("--rule", "cluster", *three(), "--out", "out.csv", "--model", "observer@http://127.0.0.1:9/v1")
    assert told.code == 4
    assert not Path("out.csv").exists()


def test_a_model_that_has_a_stand_in_is_asked_and_the_stand_in_may_be_the_built_in_one(ensemble: Ensemble) -> None:
    with observing() as (url, observer):
        Path("streamproc.toml").write_text(
            f'[endpoints.mine]\ncard = "observer"\nurls = ["{url}"]\nstand_ins = ["observer"]\n', encoding="utf-8"
        )
        told = ensemble("--rule", "cluster", *three(), "--out", "out.csv", "--model", "mine")
        assert told.code == 0, told.stderr
        assert observer.calls == 2


# wrong calls --------------------------------------------------------------------------------------------------------


def test_a_call_that_makes_no_sense_is_wrong_usage(ensemble: Ensemble) -> None:
    one, other = written("one.csv", CLIP), written("other.csv", CLIP)
    for wrong, why in [
        (("--rule", "fill", one, "--out", "o.csv"), "two or more"),
        (("--rule", "fill", one, "./one.csv", "--out", "o.csv"), "named twice"),
        (("--rule", "fill", one, other, "--out", "other.csv"), "one of the files that it is made of"),
        (("--rule", "fill", one, other, "--out", "no/o.csv"), "there is no folder 'no'"),
        (("--rule", "vote", one, other, "--out", "o.csv", "--model", "observer"), "asks no model"),
        (("--rule", "merge", one, other, "--out", "o.csv"), "--rule"),
        (("--rule", "cluster", one, other, "--out", "o.csv", "--model", "qwen3-next-80b"), "did you mean"),
    ]:
        told = ensemble(*wrong)
        assert (told.code, told.stdout) == (2, ""), told
        assert why in told.stderr
    assert clips("other.csv") == [CLIP]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace("431", "soon"), "line 2: 'Incident window start frame' is 'soon'"),
        (lambda text: text.replace("vehicle overtakes", "vehicle overtake"), "line 2: 'Label' is 'vehicle overtake'"),
        (
            lambda text: text.replace(f'"{COLUMNS[4]}",', ""),
            "line 1: not the 12 columns of a 2COOOL submission: it lacks 'Ego-car involved'",
        ),
        (lambda text: text + text.splitlines()[1], "line 3: video 0 stands in line 2 already"),
    ],
)
def test_a_file_that_is_no_submission_is_named_with_row_and_column(
    ensemble: Ensemble, change: Callable[[str], str], why: str
) -> None:
    good = written("good.csv", CLIP)
    Path("bad.csv").write_text(change(good.read_text()))
    told = ensemble("--rule", "fill", good, "bad.csv", "--out", "out.csv")
    assert told.code == 1
    assert f"bad.csv {why}" in told.stderr
    assert not Path("out.csv").exists()


def test_a_file_of_answers_that_is_something_else_is_refused_and_left_alone(ensemble: Ensemble) -> None:
    Path("out.csv.answers.jsonl").write_text('{"hello": 1}\n')
    told = ensemble("--rule", "cluster", *three(), "--out", "out.csv")
    assert told.code == 1
    assert "out.csv.answers.jsonl line 1 is no answer of ours" in told.stderr
    assert Path("out.csv.answers.jsonl").read_text() == '{"hello": 1}\n'
