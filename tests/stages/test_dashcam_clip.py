"""A dash-cam clip through the stages of its task: captions of every tenth frame, the frame where it begins, what happens.

Real pictures, decoders, runners and HTTP; the observer answers, so the clip has what it can measure.
`python -m tests.stages.test_dashcam_clip` writes the pinned prompts anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path

from msgspec.structs import replace

from streamproc.formats import submission
from streamproc.formats.submission import Clip
from streamproc.messages import Description, Grid, Incident, Source
from streamproc.models.call import Call
from streamproc.runner.look import source_key
from streamproc.stages.caption import Captioner
from streamproc.stages.decode import Decode
from streamproc.stages.describe.stage import Describe
from streamproc.stages.locate import Locate
from streamproc.video.pick import Files
from streamproc.video.workers import Workers
from tests.e2e.films import film
from tests.runner.rig import told
from tests.sim import toys
from tests.stages.scripted import Scripted, Texts
from tests.stages.test_describe import Album
from tests.stages.test_describe import Story as Described
from tests.stages.test_golden_prompts import GOLDEN, shown
from tests.stages.test_locate import Story
from tests.stages.watching import Watching, observed, task

WRITE = False
PRESETS = ("12-11-6", "6-5-rows")
TASK = task("dashcam", locate={"model": "m"}, describe={"models": ["m"], "presets": list(PRESETS)})
GRID = Grid(root="decode", origin="0", step="1", first=0)


def clip(services: Sequence[str], uri: str) -> Source:
    """At ten frames a second: every tenth frame is one a second."""
    return replace(toys.source("clip", services=("decode", *services), count=4), task=TASK, grid=GRID, uri=uri)


async def test_a_clip_becomes_a_row_of_a_submission(tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4", 8, ("red", 3.0, 8.0))
    describers = [f"describe.m.{preset}" for preset in PRESETS]
    story = Watching.of()
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(Workers(1))
        pool, _ = await stack.enter_async_context(observed())
        files = Files(workers)
        for name, stage in (
            ("decode", Decode(workers)),
            ("caption.m", Captioner("m", pool)),
            ("locate.m", Locate("m", pool)),
            *((name, Describe("m", name.rpartition(".")[2], pool, files)) for name in describers),
        ):
            await stack.enter_async_context(story.running(name, stage))
        story.log.put(
            clip(("caption.m", "locate.m", *describers), str(path)), sub=source_key("clip", 0, 0).split("\0")[1:]
        )
        async with asyncio.timeout(90):
            # An end, which needs no call, is there before the clip is described; told to stop, no further round is begun.
            await story.until(lambda: len(story.records("descriptions")) == 2 * len(PRESETS), within_s=90)
    incidents: list[Incident] = [r for r in story.records("incidents") if not r.ended]
    (incident,) = incidents
    assert (incident.frame, incident.time_ms, incident.votes) == (31, 3000, 12)
    described: list[Description] = [r for r in story.records("descriptions") if not r.ended]
    assert {d.preset for d in described} == set(PRESETS)
    for found in described:
        assert found.outcome == "done"
        assert found.fields is not None
        assert found.fields["start_frame"] == 31
        assert "no AI" in found.fields["reason"]
        assert len(found.samples or ()) == 4
        row = Clip(video="clip", **{f.name: found.fields[f.name] for f in fields(Clip) if f.name != "video"})
        assert submission.read(submission.write([row]), file="written") == [row]


# prompts -------------------------------------------------------------------------------------------------------------

FACTS = {
    "incident": 1,
    "severity": "0. No Crash",
    "ego": 0,
    "label": "vehicle overtakes",
    "cyclists": 0,
    "animals": 0,
    "pedestrians": 0,
    "vehicles": 1,
}
TELLS = {"start_frame": 21, "before": "The road is clear.", "reason": "A van cuts in."}


def is_golden(name: str, calls: Sequence[Call]) -> None:
    told = "\n======\n\n".join(shown(call.prompt) for call in calls)
    if WRITE:
        (GOLDEN / name).write_text(told)
    assert told == (GOLDEN / name).read_text()


@told
async def test_the_question_of_locate_is_pinned() -> None:
    story = Story.of()
    source = clip(("caption.m", "locate.m"), "clip.mp4")
    story.log.put(source, sub=source_key("clip", 0, 0).split("\0")[1:])
    said = FACTS | {"scene": "Two lanes, rain.", "hazards": "none", "gaze": "not shown", "ego_involved": 0}
    story.captions(source, {0: said | {"incident": -1}, 1: "failed", 2: said, 3: {"scene": "The same."}})
    models = Scripted(lambda _call: [{"frame": 21}] * 12)
    async with story.running("locate.m", Locate("m", models)):
        await story.ended()
    is_golden("dashcam.locate.txt", models.calls)


@told
async def test_the_three_questions_of_describe_are_pinned() -> None:
    story, source = Described.of(), clip(("locate.m", "describe.m.6-5-rows"), "clip.mp4")
    story.log.put(source, sub=source_key("clip", 0, 0).split("\0")[1:])
    story.incident(frame=151, time_ms=15_000)

    def says(call: Call) -> Texts:
        wanted = (call.prompt.schema or {})["properties"]
        return [{name: value for name, value in (FACTS | TELLS).items() if name in wanted}] * 4

    models = Scripted(says)
    async with story.running("describe.m.6-5-rows", Describe("m", "6-5-rows", models, Album())):
        await story.until(lambda: len(story.records("descriptions")) == 1)
    (found,) = story.descriptions()
    assert found.fields == FACTS | TELLS
    is_golden("dashcam.describe.txt", models.calls)


if __name__ == "__main__":
    WRITE = True
    test_the_question_of_locate_is_pinned()
    test_the_three_questions_of_describe_are_pinned()
