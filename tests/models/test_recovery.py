"""How model text is read: a corpus with its labels, strings that no model would write, and single rules."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.models.recovery import ladder
from streamproc.models.recovery.events import Event, confidence, described, events
from streamproc.models.recovery.fields import fields
from streamproc.models.recovery.labels import Labels
from streamproc.models.recovery.lenient import scan
from streamproc.models.recovery.nothing import says_nothing
from tests.models.corpus.answers import PROMPT, SOCCER, Case, cases
from tests.models.corpus.fuzz import invented, strings

CASES = list(cases())
KINDS = list(dict.fromkeys(c.kind for c in CASES))


def of(kind: str) -> list[Case]:
    return [c for c in CASES if c.kind == kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_of_the_corpus_is_read_as_it_is_labelled(kind: str) -> None:
    for case in of(kind):
        read = events(case.raw, SOCCER, prompt=case.prompt, cut=case.cut)
        assert (read.outcome, read.events) == (case.outcome, case.events), case.raw
        assert read.how, "an answer always says how it was read"


def test_the_corpus_holds_at_least_500_answers_of_50_kinds() -> None:
    assert len({c.raw for c in CASES}) >= 500
    assert len(KINDS) >= 50


@pytest.mark.parametrize("kind", [k for k in KINDS if not k.startswith(("odd", "unreadable"))])
def test_the_corpus_invents_nothing_by_its_own_judge(kind: str) -> None:
    for case in of(kind):
        assert invented(case.raw, events(case.raw, SOCCER, prompt=case.prompt, cut=case.cut)) is None


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_text_nothing_is_invented_and_nothing_fails(seed: int) -> None:
    """The short form: `python -m tests.bench recovery` reads a million."""
    outcomes = Counter[str]()
    for text in strings(seed, 2500):
        read = events(text, SOCCER, prompt=PROMPT if seed % 2 else None, cut=seed > 1)
        assert invented(text, read) is None, text
        msgspec.json.encode(read)
        outcomes[read.outcome] += 1
        if read.outcome == "unreadable":
            assert not read.events
    assert min(outcomes["done"], outcomes["unreadable"]) > 500, "the strings have become too easy, or too hard"


def test_the_judge_of_invention_sees_a_planted_invention() -> None:
    text = '[{"label": "Goal", "confidence": 0.9}]'
    read = events(text, SOCCER)
    assert invented(text, read) is None
    assert invented(text, msgspec.structs.replace(read, events=(Event(label="Foul"),)))
    assert invented(text, msgspec.structs.replace(read, events=(Event(label="Goal", confidence=0.5),)))
    assert invented(text, msgspec.structs.replace(read, events=(Event(label="Goal", team="home"),)))


def test_the_judge_of_invention_knows_an_escape_from_an_escaped_one() -> None:
    text = r'[{"label": "Goal", "details": "\\u00e9l\u00e9"}]'
    read = events(text, SOCCER)
    assert read.events[0].details == r"\u00e9lé"
    assert invented(text, read) is None


@given(st.text())
def test_any_text_is_read_the_same_twice(text: str) -> None:
    assert events(text, SOCCER) == events(text, SOCCER)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["label", "team", "details", "confidence", "x"]),
            st.none() | st.booleans() | st.text() | st.integers(-5, 200) | st.floats(),
        )
    )
)
def test_values_of_any_type_in_sound_json_make_no_trouble(value: list[dict[str, object]]) -> None:
    text = orjson.dumps(value).decode()
    read = events(text, SOCCER)
    assert invented(text, read) is None
    assert all(e.confidence is None or 0 <= e.confidence <= 1 for e in read.events)


# the ladder ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ('[{"label": "Goal"}]', "json"),
        ('```json\n[{"label": "Goal"}]\n```', "fenced"),
        ('I see: [{"label": "Goal"}].', "embedded"),
        ("[{'label': 'Goal'}]", "lenient"),
        ('[{"label": "Goal"}', "lenient, closed"),
        ('[{"label": "Goal"}, {"la', "lenient, cut"),
        ("1. Goal (home, 0.9)", "list"),
        ("None.", "null"),
        ("[]", "json, null"),
        ('<think>hm</think>[{"label": "Goal"}]', "thoughts, json"),
        (f'{PROMPT}\n[{{"label": "Goal"}}]', "echo, json"),
        ('[{"label": "Goal"}]' * 3, "embedded, repeats"),
        ('[{"label": "goal"}]', "json, labels"),
        ("The players walk.", "text"),
        (PROMPT, "echo"),
    ],
)
def test_an_answer_says_by_which_rungs_it_was_read(text: str, how: str) -> None:
    assert events(text, SOCCER, prompt=PROMPT).how == how


def test_the_prompts_own_example_may_be_the_answer() -> None:
    prompt = (
        'Say what happens. Where nothing does answer with the empty list:\n{"events": [], "reason": "nothing happens"}'
    )
    assert events('{"events": [], "reason": "nothing happens"}', prompt=prompt).outcome == "done"


def test_what_is_far_too_long_is_read_as_far_as_it_goes() -> None:
    text = '[{"label": "Goal"}, ' + "'" * 10_000_000
    read = events(text, SOCCER)
    assert [e.label for e in read.events] == ["Goal"]
    assert "cut" in read.how


def test_ten_megabytes_of_sound_json_are_not_read_for_ever() -> None:
    text = orjson.dumps([{"label": "Goal", "details": str(i)} for i in range(200_000)]).decode()
    assert len(events(text, SOCCER).events) <= 256


def test_nesting_without_end_is_no_event() -> None:
    for text in ('{"events":' * 900 + "[]" + "}" * 900, "[" * 5000, '{"a":' * 5000, "[[" * 400 + "]]" * 400):
        assert events(text, SOCCER).events == ()


def test_lenient_reading_agrees_with_json_where_there_is_json() -> None:
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(alphabet="ab \n{}[],:'é", max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ).filter(lambda v: isinstance(v, list | dict))
    )
    def agrees(value: object) -> None:
        # Quotes that end where an object could go on are the price of reading quotes within quotes: none in the alphabet.
        assert scan(orjson.dumps(value).decode()).values[:1] == [value]

    agrees()


# single rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "is_"),
    [
        *((0, 0.0), (1, 1.0), (0.5, 0.5), (85, 0.85), (100, 1.0), (1.5, None), (10, None), (101, None), (-0.1, None)),
        *(("0.5", 0.5), (".5", 0.5), ("85%", 0.85), ("85 %", 0.85), ("120%", None), ("7/10", 0.7), ("70/100", 0.7)),
        *(("high", None), ("0.8-0.9", None), ("~0.8", None), (True, None), (None, None), ([0.5], None)),
        *((float("nan"), None), (float("inf"), None), ("", None), ("1e-1", None)),
    ],
)
def test_confidence_is_a_share_or_refused(said: object, is_: float | None) -> None:
    assert confidence(said) == (None if is_ is None else pytest.approx(is_))


@pytest.mark.parametrize(
    "text",
    ["No goal, but a foul by home", "Nothing but net! Goal by home", "None of them scored, red card", "No. 10 scores"],
)
def test_a_sentence_that_says_something_is_not_the_null_class(text: str) -> None:
    assert not says_nothing(text)


def test_an_event_of_no_label_keeps_what_it_was_called() -> None:
    (event,) = events('[{"label": "Header", "details": "wide"}]', SOCCER).events
    assert (event.label, described(event)) == ("other", "Header: wide")


def test_without_a_task_labels_stay_as_they_were_said() -> None:
    (event,) = events('[{"label": "Header"}]').events
    assert (event.label, event.said) == ("Header", None)


def test_other_names_must_stand_for_labels() -> None:
    with pytest.raises(ValueError, match="'Gaol' has other names and is no label"):
        Labels(["Goal"], {"Tor": "Gaol"})


def test_a_label_in_capitals_is_no_template() -> None:
    (event,) = events('[{"label": "YELLOW_CARD"}]', SOCCER).events
    assert event.label == "Yellow card"
    assert events('[{"label": "EVENT_TYPE"}]', SOCCER).outcome == "unreadable"


def test_empty_brackets_in_prose_say_nothing_of_events() -> None:
    assert events("The set {} is empty, and so is [].", SOCCER).outcome == "unreadable"


def test_a_list_of_nothing_that_was_cut_may_have_gone_on() -> None:
    text = "- Goal: none\n- Foul: none"
    assert events(text, SOCCER).outcome == "done"
    assert events(text, SOCCER, cut=True).outcome == "unreadable"


@pytest.mark.parametrize(
    "text",
    ["1. Goal: No. 9 scores", "1. Goal: no doubt about it", "1. Goal: 0.9 sure", "1. Goal - Not a save this time"],
)
def test_a_list_item_that_begins_with_no_may_still_be_an_event(text: str) -> None:
    assert [e.label for e in events(text, SOCCER).events] == ["Goal"]


@pytest.mark.parametrize(
    "rest", ["none", "No", "0", "no goal visible", "None detected.", "not seen in the frames", "No goal was detected"]
)
def test_a_list_item_that_says_of_a_label_that_it_was_not_seen_is_none(rest: str) -> None:
    assert events(f"1. Goal: {rest}", SOCCER) == events("1. Goal: none", SOCCER)
    assert events(f"1. Goal: {rest}", SOCCER).outcome == "done"


@pytest.mark.parametrize("denied", [{"detected": False}, {"Occurred": "No"}, {"present": True, "visible": "false"}])
def test_an_event_that_the_model_denies_is_none(denied: dict[str, object]) -> None:
    goal = {"event": "Goal", "confidence": 0.9} | denied
    foul = {"event": "Foul", "detected": True}
    for labels in (SOCCER, Labels()):
        assert [e.label for e in events(orjson.dumps([goal, foul]).decode(), labels).events] == ["Foul"]
        assert [e.label for e in events(orjson.dumps({"events": [foul, goal]}).decode(), labels).events] == ["Foul"]
        alone = events(orjson.dumps([goal]).decode(), labels)
        assert (alone.outcome, alone.events) == ("done", ())


@pytest.mark.parametrize("beside", ['"actions": []', '"results": null', '"Detections": {}', '"events": "none"'])
def test_an_empty_list_beside_a_label_takes_nothing_from_it(beside: str) -> None:
    for labels in (SOCCER, Labels()):
        read = events(f'{{"label": "Goal", "confidence": 0.9, {beside}}}', labels)
        assert read.events == (Event(label="Goal", confidence=0.9),)
        read = events(f'{{"label": "Goal", {beside}, "answer": [{{"label": "Foul"}}]}}', labels)
        assert read.events == (Event(label="Foul"),), "what holds something is a wrapper, whatever stands on it"


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "response", "events": []}',
        '{"event": "None", "events": []}',
        '{"event": null, "results": null}',
        '{"event": "Goal", "detected": false, "actions": []}',
    ],
)
def test_an_empty_list_beside_no_label_of_the_task_is_the_null_class(text: str) -> None:
    read = events(text, SOCCER)
    assert (read.outcome, read.events) == ("done", ())


def test_a_template_that_is_ticked_off_is_still_an_echo() -> None:
    assert events('[{"event": "EVENT_TYPE", "detected": false}]', SOCCER).outcome == "unreadable"


def test_keys_of_what_was_seen_count_however_they_are_spelled() -> None:
    assert events('{"Goal": {"Detected": false}, "Foul": {"Detected": true}}', SOCCER).events == (Event(label="Foul"),)


def test_a_label_alone_is_an_answer_where_the_task_knows_it() -> None:
    assert events("Goal.", SOCCER).events == events("**Goal**", SOCCER).events
    assert [e.label for e in events("Goal.", SOCCER).events] == ["Goal"]
    assert events("Goal.").outcome == "unreadable"
    assert events("Goal.", SOCCER, cut=True).outcome == "unreadable"


def test_numbers_of_thousands_of_digits_are_refused() -> None:
    digits = "9" * 5000
    assert events(f'so [{{"label": "Goal", "confidence": {digits}}}]', SOCCER).events == (Event(label="Goal"),)
    for many in (400, 5000):
        assert fields(f'so {{"scene": "a", "cars": {"9" * many}}}', CAPTION).values == {"scene": "a"}


@pytest.mark.parametrize(
    "heap", ["```" + " " * 200_000, "```json" + "\t" * 200_000 + "[", "[ " * 100_000, '"' * 200_000]
)
def test_a_heap_of_one_thing_is_read_in_linear_time(heap: str) -> None:
    """Nothing is timed: in quadratic time these take minutes, and the test's own limit ends them."""
    assert events(heap, SOCCER, prompt=PROMPT).outcome == "unreadable"


# fields -------------------------------------------------------------------------------------------------------------

CAPTION = {
    "properties": {
        "scene": {"type": "string"},
        "incident": {"enum": [1, 0, -1]},
        "severity": {"enum": ["none", "minor", "major"]},
        "ego": {"type": "boolean"},
        "cars": {"type": "integer", "minimum": 0, "maximum": 50},
        "speed": {"type": ["number", "null"]},
        "hazards": {"type": "array", "items": {"enum": ["ice", "fog"]}},
    },
    "required": ["scene", "incident"],
}


@pytest.mark.parametrize(
    ("said", "is_"),
    [
        ('{"incident": 1}', {"incident": 1}),
        ('{"incident": "1"}', {"incident": 1}),
        ('{"incident": "-1", "Severity": "MINOR"}', {"incident": -1, "severity": "minor"}),
        ('{"severity": "None"}', {"severity": "none"}),
        ('{"severity": "majjor"}', {"severity": "major"}),
        ('{"ego": "yes", "cars": "3"}', {"ego": True, "cars": 3}),
        ('{"ego": 0, "cars": 3.0}', {"ego": False, "cars": 3}),
        ('{"speed": null}', {"speed": None}),
        ('{"speed": "n/a"}', {"speed": None}),
        ('{"speed": "12.5"}', {"speed": 12.5}),
        ('{"hazards": ["ice", "lava", "fog"]}', {"hazards": ["ice", "fog"]}),
        ('{"scene": 5}', {"scene": "5"}),
        ("{'scene': 'it's wet', 'ego': False}", {"scene": "it's wet", "ego": False}),
        ("**Scene:** wet road\n**Incident:** 1", {"scene": "wet road", "incident": 1}),
        ('{"answer": {"scene": "wet"}}', {"scene": "wet"}),
        ('Draft: {"cars": 1}. Final: {"cars": 2, "ego": true}', {"cars": 2, "ego": True}),
    ],
)
def test_fields_are_held_to_their_schema(said: str, is_: dict[str, object]) -> None:
    read = fields(said, CAPTION)
    assert read.values == is_
    assert read.outcome == "done"
    assert set(read.missing) == {"scene", "incident"} - set(is_)


@pytest.mark.parametrize(
    ("kinds", "said", "is_"),
    [
        *(
            (["boolean", "null"], said, is_)
            for said, is_ in ((False, False), ("no", False), ("none", None), (None, None))
        ),
        *((["null", "array"], said, is_) for said, is_ in (([], []), ("none", None))),
        *((["string", "null"], said, is_) for said, is_ in (("none", None), (False, None), ("nowhere", "nowhere"))),
        *((["integer", "null"], said, is_) for said, is_ in ((False, None), ("no", None), (0, 0))),
    ],
)
def test_null_is_what_the_other_types_are_not(kinds: list[str], said: object, is_: object) -> None:
    read = fields(orjson.dumps({"a": said}).decode(), {"properties": {"a": {"type": kinds}}})
    assert read.values == {"a": is_}


@pytest.mark.parametrize(
    ("options", "said", "is_"),
    [
        (["yes", "no", "n/a"], "N/A", "n/a"),
        (["Yes", "No", "None"], "none", "None"),
        (["Yes", "No", "None"], "no.", "No"),
        (["none", "no"], "No", "no"),
        (["none", "minor"], "No", "none"),
        (["none", "minor"], False, "none"),
        (["minor", None], "none", None),
        (["minor", "none", None], "None", "none"),
    ],
)
def test_an_option_is_known_by_its_name_before_it_stands_for_nothing(
    options: list[str | None], said: object, is_: object
) -> None:
    read = fields(orjson.dumps({"a": said}).decode(), {"properties": {"a": {"enum": options}}})
    assert read.values == {"a": is_}


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ('{"incident": 2, "scene": "a"}', {"incident": 2}),
        ('{"cars": -1, "scene": "a"}', {"cars": -1}),
        ('{"cars": 2.5, "scene": "a"}', {"cars": 2.5}),
        ('{"cars": "many", "scene": "a"}', {"cars": "many"}),
        ('{"severity": "catastrophic", "scene": "a"}', {"severity": "catastrophic"}),
        ('{"ego": "perhaps", "scene": "a"}', {"ego": "perhaps"}),
    ],
)
def test_what_a_schema_does_not_allow_is_kept_beside_it(said: str, refused: dict[str, object]) -> None:
    read = fields(said, CAPTION)
    assert (read.values, read.refused) == ({"scene": "a"}, refused)


@pytest.mark.parametrize("said", ["", "I cannot see that.", '{"other": 1}', "[]", '{"scene": "a', "Scene"])
def test_where_no_field_was_said_the_answer_is_unreadable(said: str) -> None:
    read = fields(said, CAPTION, cut=True)
    assert (read.outcome, read.values) == ("unreadable", {})


@pytest.mark.parametrize(
    "raw", ['{"scene": "a", "incident": 1', '{\n  "scene": "a",\n  "incident": 1,\n  "severity": "mi']
)
def test_an_object_that_is_not_whole_is_not_read_by_its_lines(raw: str) -> None:
    read = fields(raw, CAPTION)
    assert (read.outcome, read.how) == ("unreadable", "cut")


def test_one_field_alone_may_be_answered_bare() -> None:
    frame = {"properties": {"frame": {"type": "integer", "minimum": 1}}, "required": ["frame"]}
    assert fields("120", frame).values == {"frame": 120}
    assert fields("120.", frame).how == "bare"
    assert fields('{"frame": 120}', frame).values == {"frame": 120}
    assert fields("0", frame).outcome == "unreadable"
    assert fields("I think it is 120", frame).outcome == "unreadable"


def test_what_a_schema_leaves_open_can_still_be_encoded() -> None:
    read = fields(
        'so {"open": {"a": "\\ud800", "b": NaN, "c": [[[[[[[[[[1]]]]]]]]]]}, "cars": "\\ud800"}',
        {"properties": {"open": {"type": "object"}, "cars": {"type": "integer"}, "any": {}}},
    )
    assert b"NaN" not in msgspec.json.encode([read.values, read.refused])


@pytest.mark.parametrize("seed", range(2))
def test_fields_of_any_text_make_no_trouble(seed: int) -> None:
    for text in strings(seed, 1500):
        msgspec.json.encode(fields(text, CAPTION).values)
        assert isinstance(ladder.read(text).values, tuple)


@pytest.mark.parametrize("apart", ["\n", " ", ", "])
@pytest.mark.parametrize("length", range(1940, 2020, 3))
def test_half_of_a_number_is_no_number_where_an_item_is_too_long(length: int, apart: str) -> None:
    text = f"Label: Goal{apart}Details: {'x ' * (length // 2)}{'x' * (length % 2)}{apart}Confidence: 0.85 or so"
    assert invented(text, events(text)) is None


@pytest.mark.parametrize("text", ["1. Goal\nConfidence: 0.", "Label: Goal\nConfidence: 0.", "- Goal, home, 0."])
def test_half_of_a_number_is_no_number_where_the_answer_was_cut(text: str) -> None:
    assert events(text, cut=True).events == ()
    assert events(f"{text}9. It was a header.", cut=True).events[0].confidence in (0.9, None)


# the command --------------------------------------------------------------------------------------------------------


def recovered(lines: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "streamproc", "recover"], input=lines, capture_output=True, timeout=60, check=False
    )


def test_the_command_answers_a_line_for_each_line() -> None:
    told = recovered(b'{"raw": "None."}\n{"raw": "[{\'label\': \'Goal\'}"}\n{"raw": "hm"}\n')
    assert told.returncode == 0, told.stderr
    assert [orjson.loads(line) for line in told.stdout.splitlines()] == [
        {"outcome": "done", "how": "null", "events": []},
        {"outcome": "done", "how": "lenient, closed", "events": [{"label": "Goal"}]},
        {"outcome": "unreadable", "how": "text", "events": []},
    ]


def test_the_command_knows_a_prompt_and_an_end_by_length() -> None:
    told = recovered(
        orjson.dumps({"raw": PROMPT, "prompt": PROMPT})
        + b'\n{"raw": "[{\\"label\\": \\"Goal\\"}", "finish": "length"}\n'
    )
    assert [orjson.loads(line)["how"] for line in told.stdout.splitlines()] == ["echo", "lenient, cut"]


def test_a_line_that_is_none_of_ours_is_answered_too_and_told() -> None:
    told = recovered(b'nonsense\n{"raw": 3}\n\n\xff\xfe\n{"raw": "None"}\n')
    assert told.returncode == 1
    assert len(told.stdout.splitlines()) == 5
    assert told.stderr.decode().count("is not {") == 4


def read_as(task: str, *lines: dict[str, object], options: tuple[str, ...] = ()) -> list[dict[str, object]]:
    told = subprocess.run(
        [sys.executable, "-m", "streamproc", "recover", "--task", task, *options],
        input=b"\n".join(map(orjson.dumps, lines)),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return [orjson.loads(line) for line in told.stdout.splitlines()]


def test_the_command_reads_as_a_task_does_with_its_labels_and_their_other_names() -> None:
    told = read_as(
        "soccer",
        {"raw": "1. **Shot on target** (home, 0.9): saved"},
        {"raw": '[{"label": "Hat trick"}]'},
        {"raw": '{"Goal": {"team": "away"}, "Corner": null}'},
        {"raw": '{"home_team": "Reds"}', "stage": "context"},
    )
    assert [line["events"] for line in told] == [
        [{"label": "Shots on target", "said": "Shot on target", "team": "home", "confidence": 0.9, "details": "saved"}],
        [{"label": "other", "said": "Hat trick"}],
        [{"label": "Goal", "team": "away"}],
        [],
    ]
    assert told[3]["fields"] == {"home_team": "Reds"}


def test_the_command_reads_the_fields_of_a_task_that_captions() -> None:
    sound, none = read_as(
        "dashcam", {"raw": "```json\n{'incident': '1', 'ego_involved': '1'}\n```"}, {"raw": "Nothing."}
    )
    assert (sound["outcome"], sound["events"], sound["fields"]) == ("done", [], {"incident": 1, "ego_involved": 1})
    assert none["outcome"] == "unreadable"


def test_the_command_takes_whatever_answers_a_question_for_what_was_asked() -> None:
    (told,) = read_as(
        "any",
        {"raw": '[{"label": "car", "team": "home"}]'},
        options=("--set", "detect.question=Tell me when a red car passes"),
    )
    assert told["events"] == [{"label": "a red car passes", "said": "car"}]


@pytest.mark.parametrize("wrong", [("--task", "socer"), ("--set", "labels=a"), ("--task", "any", "--set", "labls=a")])
def test_the_command_says_what_is_wrong_with_a_wish_before_it_reads(wrong: tuple[str, ...]) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "streamproc", "recover", *wrong], input=b"", capture_output=True, timeout=60, check=False
    )
    assert told.returncode == 2
    assert b"Traceback" not in told.stderr


def test_a_line_that_names_a_stage_nobody_reads_is_told() -> None:
    told = recovered(b'{"raw": "None", "stage": "dedup"}\n{"raw": "None", "stage": ["x"]}\n{"raw": "None"}\n')
    assert told.returncode == 1
    assert len(told.stdout.splitlines()) == 3
