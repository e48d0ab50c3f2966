"""JSON of a study: finite numbers, keys once, bounded depth; what was begun is a setting of this version."""

from __future__ import annotations

import json

import pytest

from mipoison.defenses import DEFENSES
from study.records.reading import Unreadable, announce_left_out
from study.records.reading.documents import MAX_DEPTH, about_to_show, config_from, parse_json, started_of

BEGUN = {"defense": "noise", "knobs": DEFENSES["noise"]().flat(), "attempt": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "a key that occurs twice"),
        ("[NaN]", "NaN, which is not a finite number"),
        ("[1e999]", "1e999, which is not a finite number"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), f"more than {MAX_DEPTH} deep"),
        (r'"\ud800"', "an unpaired surrogate"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_json_of_ours(text: str, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        parse_json(text.encode())


def test_the_rest_is_what_json_says() -> None:
    value = {"a": [1, 2.5, None, True, {"b": "ü"}], "c": {}}
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "changes",
    [{"attempt": -1}, {"attempt": True}, {"attempt": 10**6}, {"defense": "gone"}, {"knobs": {"budget": 9.0}},
     {"knobs": [1]}, {"defense": 3}],
)  # fmt: skip
def test_a_begun_trial_of_another_shape(changes: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        started_of(json.dumps(BEGUN | changes).encode())


def test_a_begun_trial() -> None:
    assert started_of(json.dumps(BEGUN).encode()) == BEGUN
    assert config_from("noise", {"budget": 0.25}) == DEFENSES["noise"](budget=0.25)


def test_a_report_leaves_out_what_is_of_another_kind() -> None:
    about = {"study": "s", "source": 3, "settings": {"scale": "quick", "max_accuracy_drop": 7}}
    said: list[str] = []
    with announce_left_out(said.append):
        kept = about_to_show(json.dumps(about).encode(), "s/study.json")
    assert kept == {"study": "s", "settings": {"scale": "quick"}}
    assert len(said) == 2
    bounds: dict[str, object] = {"min_top2_agreement": 0.5, "min_top5_agreement": None}
    bad = {"max_ece_increase": "x", "min_label_agreement": True, "max_log_loss_increase": -1}
    with announce_left_out(said.append):
        kept = about_to_show(json.dumps({"settings": bounds | bad}).encode(), "s/study.json")
    assert kept == {"settings": bounds}
    assert len(said) == 5
    with pytest.raises(Unreadable, match="a list, not an object"):
        about_to_show(b"[]", "s/study.json")
