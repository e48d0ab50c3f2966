"""Rows of a trial's file: of one trial, one defense, one value of each knob; other scenes are left out."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from study.records.reading import Unreadable, announce_left_out
from study.records.reading.episodes import check_trial, of_one_scene
from study.records.schema import to_table
from tests.study.records.helpers import row


def table(*changes: dict[str, Any]) -> pa.Table:
    common = {"study": "s", "trial": "t1", "attempt": 0, "dataset": "digits", "split": "a"}
    rows = [row(**common | {"episode_id": f"{i:016x}"} | change) for i, change in enumerate(changes)]
    return to_table(rows)


def test_a_trial_is_accepted() -> None:
    check_trial(table({}, {"attack": "ridge"}, {"seed": 1, "scene.seed": 1, "split": "b"}), "t1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trial": "t2"}, "its rows are of another trial"),
        ({"status": "odd"}, "status"),
        ({"attack": "../up"}, "attack"),
        ({"model_accuracy": 1.5}, "model_accuracy"),
        ({"defense.budget": 0.5}, "2 values of defense.budget"),
        ({"defense": "lpa"}, "several defenses"),
        ({"split": "b"}, "several splits of a seed"),
    ],
)
def test_rows_that_are_no_trial(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        check_trial(table({}, change), "t1")


def test_another_scene_is_left_out_and_said() -> None:
    same, moved = table({}), table({"dataset": "digits:elsewhere"})
    other, split = table({"scene.limit": 99}), table({"split": "b"})
    first = table({"scene.limit": 50})
    said: list[str] = []
    with announce_left_out(said.append):
        trials = [("none", first), ("t1", same), ("t2", moved), ("t3", other), ("t4", split)]
        kept = [name for name, _ in of_one_scene(trials, "s")]
    assert kept == ["none", "t1", "t2"]  # what is not stated is no difference, nor is where files lie
    assert len(said) == 2
    assert "scene.limit" in said[0]
    assert "split of seed 0" in said[1]
