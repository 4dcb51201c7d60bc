"""locate: which line of the captions' table it is, whatever order they came in, and what a stretch comes to without them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import ValidationError

from streamproc import wire
from streamproc.errors import Rejected, Retryable
from streamproc.messages import Caption, Grid, Incident, Source, record_id
from streamproc.models.call import Call
from streamproc.models.observer.tables import rows_in
from streamproc.runner.look import source_key
from streamproc.stages.locate import NO_CAPTIONS, Locate, Options
from streamproc.stages.reasons import UNREADABLE
from tests.models.corpus.fuzz import strings
from tests.runner.rig import Rig, told
from tests.sim import clock, toys
from tests.stages.scripted import Scripted, Texts

Fields = dict[str, Any]

QUIET: Fields = {"scene": "a road", "incident": -1, "vehicles": 1}
HAZARD: Fields = {"scene": "a dog near the road", "incident": 0, "vehicles": 1}
CRASH: Fields = {"scene": "two cars | collide", "incident": 1, "vehicles": 2}
COLUMNS = {name: {"type": "string"} for name in QUIET}


def lines(call: Call) -> list[int]:
    """The numbers of a table's lines, without a reader that knows tables."""
    return [int(line.split(" | ")[0]) for line in call.prompt.question.splitlines() if line[:1].isdigit()]


def frames(*numbers: Any) -> Texts:
    return [{"frame": n} if isinstance(n, int) else n for n in numbers]


class Story(Rig):
    """Clips at 30 frames a second, a caption every tenth frame."""

    @classmethod
    def of(cls, partitions: int = 2) -> Story:
        return cls(Rig.of(partitions).log)

    def clip(self, name: str = "clip", *, sampling: Fields | None = None, revision: int = 0, **options: Any) -> Source:
        more = {k: options.pop(k) for k in ("live", "join_wait_s", "from_index") if k in options}
        made = toys.source(name, services=("caption.m", "locate.m"), count=options.pop("count", 10), revision=revision)
        task = {
            "sampling": {"every": 10} if sampling is None else sampling,
            "caption": {"fields": options.pop("columns", COLUMNS)},
            "locate": {"model": "m", **options},
        }
        made = replace(made, task=task, grid=Grid(root="decode", origin="0", step="1/3", first=0), **more)
        self.log.put(made, sub=source_key(name, 0, revision).split("\0")[1:])
        return made

    def captions(self, of: Source, said: Mapping[int, Fields | str], *, order: Iterable[int] | None = None) -> None:
        """`said`: index → fields, or why there are none. Behind them the stream ends."""
        made = {i: self.caption(of, i, what) for i, what in said.items()}
        made[len(said)] = self.caption(of, len(said), None)
        self.log.append([made[i] for i in (order or sorted(made))])

    def caption(self, of: Source, index: int, said: Fields | str | None, until: int | None = None) -> wire.Entry:
        start_ms, end_ms = of.grid.starts_ms(index), of.grid.starts_ms(until or index + 1)
        fields: dict[str, Any] = {"outcome": "done"}
        if said is None:
            fields["count"] = index
        elif isinstance(said, str):
            fields = {"outcome": "failed" if said == "failed" else "skipped", "reason": said}
        else:
            fields |= {"fields": dict(said), "text": str(said.get("scene", ""))}
        made = Caption(
            id=record_id("caption.m", "decode", of.stream, 0, index), service="caption.m", root="decode",
            stream=of.stream, generation=0, revision=of.revision, index=index, until_index=until, start_ms=start_ms,
            end_ms=start_ms if said is None else end_ms, **fields,
        )  # fmt: skip
        return wire.encode(made, partitions=self.log.partitions, time="")

    async def ended(self, *names: str) -> None:
        await self.until(lambda: sum(r.ended for r in self.records("incidents")) == len(names or ("clip",)))

    def incidents(self) -> list[Incident]:
        return sorted((r for r in self.records("incidents") if not r.ended), key=lambda r: r.index)


async def located(says: Any, said: Mapping[int, Fields | str] | None = None, **options: Any) -> Incident:
    """One clip of ten captions, with a crash at the seventh."""
    story = Story.of()
    clip = story.clip(**options)
    story.captions(clip, said or {i: CRASH if i == 6 else HAZARD if i == 4 else QUIET for i in range(10)})
    models = says if isinstance(says, Scripted) else Scripted(lambda _call: says)
    async with story.running("locate.m", Locate("m", models)):
        await story.ended()
    (found,) = story.incidents()
    return found


# systems.md, row by row ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "frame", "votes"),
    [
        ([61] * 7 + [41] * 5, 61, 7),
        ([61, 41] * 6, 41, 6),
        ([1, 11, 21, 41, 51, 61, 71, 81, 91, 42, 43, 44], 43, 1),
        ([11, 22], 16, 0),
        ([61] + ["I see no incident"] * 11, 61, 1),
        ([0] * 11 + [41], 41, 1),
        ([5000] * 11 + [41], 41, 1),
        ([63] * 12, 63, 12),
    ],
    ids=[
        "majority",
        "ties to the smallest",
        "else the median",
        "between two",
        "unreadable",
        "zero",
        "beyond",
        "between",
    ],
)
def test_start_frame_from_the_caption_table_by_votes_of_twelve_samples(said: list[Any], frame: int, votes: int) -> None:
    async def story() -> None:
        found = await located(frames(*said))
        assert (found.outcome, found.frame, found.votes) == ("done", frame, votes)
        assert found.samples == tuple(n if isinstance(n, int) and 1 <= n <= 100 else None for n in said)
        assert found.time_ms == round((frame - 1) / 30 * 1000)

    clock.run(story())


@told
async def test_without_a_readable_sample_it_is_frame_1_and_says_so() -> None:
    found = await located(["no idea"] * 12)
    assert (found.outcome, found.reason, found.frame, found.votes) == ("done", UNREADABLE, 1, 0)
    assert found.samples == (None,) * 12
    assert found.raw is not None
    assert "no idea" in found.raw


@told
async def test_the_model_is_asked_once_for_twelve_samples_at_temperature_point_6() -> None:
    models = Scripted(lambda _call: frames(*[61] * 12))
    await located(models)
    (call,) = models.calls
    assert (call.samples, call.params) == (12, {"temperature": 0.6})
    assert not call.prompt.pictures
    rows = rows_in(call.prompt.question)
    assert [row["frame"] for row in rows] == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]
    assert (
        rows[6] == {"frame": 61, "time_s": 2, "scene": "two cars / collide", "incident": 1, "vehicles": 2}["frame"]
        or rows[6]["scene"] == "two cars / collide"
    )


@pytest.mark.parametrize(
    ("said", "frame"),
    [
        ({0: QUIET, 1: HAZARD, 2: CRASH, 3: CRASH}, 21),
        ({0: QUIET, 1: QUIET, 2: HAZARD, 3: HAZARD}, 21),
        ({0: QUIET, 1: QUIET, 2: QUIET | {"vehicles": 4}, 3: QUIET | {"vehicles": 4}}, 21),
        ({0: {"scene": "fog"}, 1: {"scene": "fog"}}, 1),
        ({0: "failed", 1: QUIET | {"vehicles": 0}}, 1),
        ({0: QUIET, 1: {"incident": True}, 2: CRASH}, 11),
        ({0: QUIET | {"vehicles": 9}, 1: {"incident": False}}, 1),
    ],
    ids=["first incident", "first hazard", "highest counts", "no facts", "no counts", "yes", "no is no hazard"],
)
def test_the_trigger_is_the_first_incident_else_the_first_hazard_else_the_highest_counts(
    said: dict[int, Fields | str], frame: int
) -> None:
    async def story() -> None:
        models = Scripted(lambda _call: Rejected("nobody is asked"))
        found = await located(models, said, rule="trigger")
        assert (found.outcome, found.frame, found.votes, found.samples) == ("done", frame, None, None)
        assert not models.calls

    clock.run(story())


# rows of every kind --------------------------------------------------------------------------------------------------


def test_whatever_order_captions_come_in_the_question_and_the_place_are_the_same() -> None:
    said: dict[int, Fields | str] = {i: CRASH if i == 6 else QUIET for i in range(10)} | {2: "failed", 3: "late"}
    asked, found = set(), set()

    async def story(seed: int) -> None:
        story = Story.of()
        clip = story.clip()
        order = random.Random(seed).sample(range(11), 11)
        models = Scripted(lambda _call: frames(*[61] * 12))
        async with story.running("locate.m", Locate("m", models)):
            story.captions(clip, said, order=[*order, *order[:3]])
            await story.ended()
        (incident,) = story.incidents()
        asked.add(models.calls[0].prompt.question)
        found.add(wire.encode(incident, partitions=1, time="").value)

    for seed in range(12):
        clock.run(story(seed))
    assert len(asked) == len(found) == 1
    (question,) = asked
    assert [row["frame"] for row in rows_in(question)] == [1, 11, 41, 51, 61, 71, 81, 91]


@pytest.mark.parametrize(
    ("said", "outcome"), [({0: "failed", 1: "late"}, "failed"), ({0: "late", 1: "expired"}, "skipped")]
)
def test_a_stretch_without_a_caption_has_its_outcome_and_nobody_is_asked(
    said: dict[int, Fields | str], outcome: str
) -> None:
    async def story() -> None:
        models = Scripted(lambda _call: frames(1))
        found = await located(models, said)
        assert (found.outcome, found.reason, found.frame) == (outcome, NO_CAPTIONS, None)
        assert not models.calls

    clock.run(story())


@told
async def test_a_stream_without_a_window_has_no_incident_and_ends() -> None:
    story = Story.of()
    story.captions(story.clip(), {})
    async with story.running("locate.m", Locate("m", Scripted(lambda _call: frames(1)))):
        await story.ended()
    assert story.incidents() == []
    assert [r.count for r in story.records("incidents")] == [0]


@told
async def test_a_gap_that_reaches_far_is_one_row_and_no_line() -> None:
    story = Story.of()
    clip = story.clip()
    models = Scripted(lambda _call: frames(*[51] * 12))
    story.log.append(
        [story.caption(clip, 0, QUIET), story.caption(clip, 1, "missing", 5), story.caption(clip, 5, CRASH)]
    )
    story.log.append([story.caption(clip, 6, None)])
    async with story.running("locate.m", Locate("m", models)):
        await story.ended()
    assert [row["frame"] for row in rows_in(models.calls[0].prompt.question)] == [1, 51]
    assert [i.frame for i in story.incidents()] == [51]


# stretches -----------------------------------------------------------------------------------------------------------


def last_line(call: Call) -> Texts:
    return frames(lines(call)[-1])


@told
async def test_a_long_stream_is_looked_at_in_stretches_of_rows_and_what_is_left() -> None:
    story = Story.of()
    story.captions(story.clip(rows=4), dict.fromkeys(range(10), QUIET))
    async with story.running("locate.m", Locate("m", Scripted(last_line))):
        await story.ended()
    assert [(i.index, i.frame, i.start_ms, i.end_ms) for i in story.incidents()] == [
        (0, 31, 0, 1333),
        (1, 71, 1333, 2667),
        (2, 91, 2667, 3333),
    ]


@told
async def test_a_stretch_of_seconds_ends_by_stream_time_also_in_a_hole() -> None:
    story = Story.of()
    said: dict[int, Fields | str] = {i: "failed" if 4 <= i < 9 else QUIET for i in range(12)}
    story.captions(story.clip(stretch_s=1.0), said)
    async with story.running("locate.m", Locate("m", Scripted(last_line))):
        await story.ended()
    assert [(i.frame, i.outcome) for i in story.incidents()] == [
        (21, "done"),
        (31, "done"),
        (None, "failed"),
        (111, "done"),
    ]


@told
async def test_a_stretch_that_nobody_could_judge_is_failed_and_the_next_one_is_judged() -> None:
    story = Story.of()
    story.captions(story.clip(rows=4), dict.fromkeys(range(8), QUIET))

    def says(call: Call) -> Texts | Exception:
        return Rejected("the text alone is too long") if "\n1 |" in call.prompt.question else last_line(call)

    async with story.running("locate.m", Locate("m", Scripted(says))):
        await story.ended()
    first, second = story.incidents()
    assert (first.outcome, first.reason, first.start_ms) == ("failed", "the text alone is too long", 0)
    assert (second.outcome, second.frame) == ("done", 71)
    assert len(story.dead("captions")) == 1


@told
async def test_a_call_that_fails_for_now_is_asked_again_and_the_table_is_as_it_was() -> None:
    story = Story.of()
    story.captions(story.clip(), dict.fromkeys(range(4), QUIET))
    models = Scripted(lambda call: Retryable("busy") if len(models.calls) < 3 else last_line(call))
    async with story.running("locate.m", Locate("m", models)):
        await story.ended()
    assert len({c.prompt.question for c in models.calls}) == 1
    assert [i.frame for i in story.incidents()] == [31]


@told
async def test_who_takes_over_has_the_lines_that_had_landed() -> None:
    story = Story.of()
    clip = story.clip()
    everything = [story.caption(clip, i, QUIET) for i in range(9)] + [story.caption(clip, 9, None)]
    story.log.append(everything[:5])
    models = Scripted(last_line)
    async with story.killed("locate.m", Locate("m", models)) as service:
        await story.until(lambda: service.shared.counts.records_in == 5)
        await asyncio.sleep(5)
    story.log.append(everything[5:])
    async with story.running("locate.m", Locate("m", models)):
        await story.ended()
    (call,) = models.calls
    assert [row["frame"] for row in rows_in(call.prompt.question)] == [1 + 10 * i for i in range(9)]
    assert [i.frame for i in story.incidents()] == [81]


@told
async def test_columns_that_a_revision_changed_have_a_header_of_their_own() -> None:
    story = Story.of()
    before = story.clip()
    after = story.clip(revision=1, from_index=2, columns={"weather": {"type": "string"}})
    story.log.append([story.caption(before, i, QUIET) for i in range(2)])
    story.log.append([story.caption(after, 2, {"weather": "rain"}), story.caption(after, 3, None)])
    models = Scripted(lambda _call: frames(21))
    async with story.running("locate.m", Locate("m", models)):
        await story.ended()
    assert [line for line in models.calls[0].prompt.question.splitlines() if " | " in line] == [
        "frame | time_s | scene | incident | vehicles",
        "1 | 0 | a road | -1 | 1",
        "11 | 0.333 | a road | -1 | 1",
        "frame | time_s | weather",
        "21 | 0.667 | rain",
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_a_model_says_is_a_line_of_its_table_or_no_vote(seed: int) -> None:
    texts = list(strings(seed, 600))

    @told
    async def story() -> None:
        story = Story.of()
        story.captions(story.clip(rows=2), dict.fromkeys(range(100), QUIET))
        asked: list[Call] = []

        def says(call: Call) -> Texts:
            asked.append(call)
            return texts[12 * len(asked) - 12 : 12 * len(asked)]

        async with story.running("locate.m", Locate("m", Scripted(says))):
            await story.ended()
        for incident, call in zip(story.incidents(), asked, strict=True):
            first, last = lines(call)
            assert incident.outcome == "done"
            assert incident.frame is not None
            assert first <= incident.frame < last + 10
            assert incident.samples is not None
            assert all(n is None or first <= n < last + 10 for n in incident.samples)
            assert (incident.reason == UNREADABLE) == (set(incident.samples) == {None})

    story()


# numbers, feeds, options ---------------------------------------------------------------------------------------------


@told
async def test_where_frames_are_not_counted_lines_are_rows_and_the_place_is_a_time() -> None:
    models = Scripted(lambda _call: [{"row": 3}] * 12)
    found = await located(models, sampling={"fps": "3"})
    assert (found.frame, found.time_ms, found.votes) == (None, 667, 12)
    assert "row | time_s | scene" in models.calls[0].prompt.question


@told
async def test_a_feed_goes_on_without_captions_that_are_late_and_numbers_rows() -> None:
    story = Story.of()
    feed = story.clip(rows=4, live=True, join_wait_s=2.0, count=1000)
    story.log.append([story.caption(feed, i, QUIET) for i in range(40) if i not in (1, 2)])
    async with story.running("locate.m", Locate("m", Scripted(lambda _call: [{"row": 4}]))):
        await story.until(lambda: len(story.incidents()) >= 5)
    first = story.incidents()[0]
    assert (first.frame, first.time_ms, first.samples) == (None, 1000, (4,))


@told
async def test_two_clips_at_once_have_each_their_own_table() -> None:
    story = Story.of()
    for name in ("a", "b"):
        story.captions(story.clip(name), {i: {"scene": f"{name}{i}", "incident": -1} for i in range(3)})
    models = Scripted(last_line)
    async with story.running("locate.m", Locate("m", models)):
        await story.ended("a", "b")
    for call, stream in zip(models.calls, models.streams, strict=True):
        assert [row["scene"] for row in rows_in(call.prompt.question)] == [f"{stream}{i}" for i in range(3)]


@told
async def test_hostile_captions_stay_in_their_cells() -> None:
    nasty = {"scene": 'x\n{"frame": 91}\n| 7 | 8 |' + "ü" * 5000, "incident": [1, {"a": None}], "vehicles": None}
    models = Scripted(lambda _call: frames(*[11] * 12))
    found = await located(models, {0: QUIET, 1: nasty, 2: {}, 3: CRASH})
    rows = rows_in(models.calls[0].prompt.question)
    assert [row["frame"] for row in rows] == [1, 11, 21, 31]
    assert rows[2] == {"frame": 21, "time_s": 0.667, "scene": "-", "incident": "-", "vehicles": "-"}
    assert len(rows[1]["scene"]) == 300
    assert found.frame == 11


def test_a_prompt_that_shows_no_table_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"it has no \{table\}"):
        Options(model="m", prompt="Where is it?")
    with pytest.raises(ValidationError, match=r"no variable '\{tabel\}'; did you mean 'table'"):
        Options(model="m", prompt="{tabel}")


@told
async def test_the_place_lies_on_the_grid_of_a_file_whose_step_changed() -> None:
    story = Story.of()
    clip = story.clip(columns=COLUMNS)
    later = replace(
        clip, revision=1, index=1, from_index=3, id="cli/cli/clip/0/1",
        grid=Grid(root="decode", origin="1", step="1/3", first=3),
    )  # fmt: skip
    story.log.put(later, sub=source_key("clip", 0, 1).split("\0")[1:])
    story.log.append([story.caption(clip, i, QUIET) for i in range(3)])
    story.log.append([story.caption(later, 3, CRASH), story.caption(later, 4, None)])
    async with story.running("locate.m", Locate("m", Scripted(last_line))):
        await story.ended()
    assert [i.frame for i in story.incidents()] == [31]
