"""Tasks: read from their files, changed option by option, and checked with words that help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.errors import Misconfigured
from streamproc.pipeline.parts import PARTS, check_fed, plan_of, planned, readers
from streamproc.task import OBSERVER, Task, asking, load, options, tasks


@pytest.mark.parametrize("name", tasks())
def test_every_task_that_ships_can_be_loaded_and_says_what_it_is_for(name: str) -> None:
    task = load(name)
    assert task.name == name
    assert task.about


@pytest.mark.parametrize("name", tasks())
def test_a_task_survives_being_written_into_a_source_and_read_again(name: str) -> None:
    task = load(name)
    assert Task.model_validate(json.loads(json.dumps(task.resolved()))) == task


def test_a_stage_whose_model_nobody_named_is_answered_by_the_observer() -> None:
    task = load("any")
    assert task.detect is not None
    assert task.caption is not None
    assert task.detect.models == (OBSERVER,)
    assert task.caption.model == OBSERVER


def test_models_are_named_by_stage_and_several_where_a_stage_asks_several() -> None:
    task = load("any", models=["detect=a", "detect=b", "caption=a"])
    assert [p.service for p in planned(task) if p.model] == ["caption.a", "detect.a", "detect.b"]
    with pytest.raises(Misconfigured, match="asks one model"):
        load("any", models=["caption=a", "caption=b"])


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ("labels=red car, fire", ("red car", "fire")),
        ('labels=["red car", "fire"]', ("red car", "fire")),
        ("labels.names=red car,fire", ("red car", "fire")),
    ],
)
def test_labels_are_told_with_commas_or_as_a_list(option: str, found: tuple[str, ...]) -> None:
    assert load("any", options=[option]).labels.names == found


def test_values_are_read_as_their_option_wants_them(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Is anything of this to be seen?\n{labels}")
    thresholds = tmp_path / "thresholds.json"
    thresholds.write_text('{"red car": 0.5}')
    task = load(
        "any",
        options=[
            "dedup.within_s=4.5",
            "sampling.fps=30000/1001",
            "caption.temperature=0",
            f"detect.prompt=@{prompt}",
            f"ensemble.thresholds=@{thresholds}",
            "labels.teams=true",
        ],
    )
    assert task.dedup is not None
    assert task.caption is not None
    assert task.detect is not None
    assert task.ensemble is not None
    assert task.dedup.within_s == 4.5
    assert task.sampling.fps == "30000/1001"
    assert task.caption.temperature == 0
    assert task.detect.prompt == prompt.read_text()
    assert task.ensemble.thresholds == {"red car": 0.5}
    assert task.labels.teams


def test_one_way_to_sample_takes_the_place_of_the_other() -> None:
    assert load("any", options=["sampling.every=10"]).sampling.fps is None
    assert load("dashcam", options=["sampling.fps=2"]).sampling.every is None


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("dedup.withn_s=3", "did you mean 'dedup.within_s'"),
        ("dedup.within_s", "VALUE"),
        ("dedup.within_s=soon", "dedup.within_s"),
        ("dedup.within_s=-1", "greater than or equal to 0"),
        ("sampling.fps=0", "above 0"),
        ("sampling.fps=1/0", "above 0"),
        ("detect.prompt=What of {lables}?", "did you mean 'labels'"),
        ("labels.about={goal = 'a goal'}", "no label 'goal'"),
        ("labels=goal, Goal", "the same but for their case"),
        ("ensemble.thresholds=@/not/there", "cannot be read"),
    ],
)
def test_what_cannot_be_is_told_by_name(option: str, told: str) -> None:
    with pytest.raises(Misconfigured, match=told):
        load("any", options=[option])


def test_a_file_of_ones_own_is_a_task(tmp_path: Path) -> None:
    mine = tmp_path / "Door.toml"
    mine.write_text('about = "a door"\n[sampling]\nfps = 1\n[detect]\nquestion = "somebody comes"\n[dedup]\n')
    task = load(str(mine))
    assert task.name == "door"
    assert [p.service for p in planned(task)] == ["decode", f"detect.{OBSERVER}", "dedup"]
    mine.write_text("about = ")
    with pytest.raises(Misconfigured, match=r"Door\.toml"):
        load(str(mine))
    with pytest.raises(Misconfigured, match="not there"):
        load(str(tmp_path / "none.toml"))


def test_every_option_says_what_it_is_for() -> None:
    assert [o.name for o in options() if not o.help and o.name != "name"] == []


def test_who_reads_what_follows_from_the_services() -> None:
    plans = planned(load("demo"))
    assert readers(plans) == {
        "windows": ("context.observer", "caption.observer", "detect.observer"),
        "detections": ("dedup",),
        "events": ("describe.observer.6-5-10", "ensemble"),
        "descriptions": ("ensemble",),
    }


def test_a_service_is_found_by_its_name() -> None:
    for plan in (p for name in tasks() for p in planned(load(name))):
        assert plan_of(plan.service) == plan
    with pytest.raises(Misconfigured, match="did you mean 'detect'"):
        plan_of("detct.a")
    with pytest.raises(Misconfigured, match=r"describe\.MODEL\.PRESET"):
        plan_of("describe.a")


def test_a_stage_that_nobody_writes_for_is_told_before_anything_runs(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[sampling]\nfps = 1\n[caption]\n[dedup]\n")
    with pytest.raises(Misconfigured, match="'dedup' has nothing to read: the task has none of the stages detect"):
        check_fed(planned(load(str(mine))))
    for name in tasks():
        check_fed(planned(load(name)))


def test_every_stage_that_asks_is_among_the_parts() -> None:
    assert asking().keys() <= PARTS.keys()


def test_the_command_lists_tasks_and_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(build(), ["tasks", "list"]) == Code.DONE
    assert "dashcam" in capsys.readouterr().out
    assert exit_code(build(), ["tasks", "show", "soccer"]) == Code.DONE
    shown = capsys.readouterr().out
    assert "dedup.within_s" in shown
    assert "{labels}" in shown
    assert exit_code(build(), ["tasks", "show", "any", "--json"]) == Code.DONE
    assert len(json.loads(capsys.readouterr().out)["options"]) == len(list(options())) - 1
