"""The extract of a study: which settings it shows, and what of them; README's is of committed records."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study.records.constraints import Constraints
from study.records.finished import load
from study.reports.extract import HEAD, extract
from study.reports.findings import Findings
from tests.study.reports.test_summary import ANCHORS, CERTIFIED, rows

ROOT = Path(__file__).resolve().parents[3]
SHOWN = ("rounding", "noise", "lpa", "tail-noise")
"""Defenses of the table in README."""
ALSO = ("rounding", "codebook", "lpa", "tail-noise")
"""Defenses of the tables of other data in FINDINGS."""


def cells(*parts: list[dict[str, object]], **bounds: float) -> list[list[str]]:
    episodes = pd.DataFrame([{"rank_correlation": 0.7, **row} for part in (ANCHORS, *parts) for row in part])
    found = Findings(episodes=episodes, about={"study": "s"}, constraints=Constraints(**bounds))
    lines = extract(found, ["rounding", "noise"]).splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    return [line[2:-2].split(" | ") for line in lines]


def test_it_shows_anchors_starting_points_and_the_recommended_setting() -> None:
    ten = {"defense.decimals": 1, **CERTIFIED}
    found = cells(
        rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **ten),
        rows("t2", "noise", distortion=0.1, gain=0.2, seed=4, **{"defense.budget": 0.015}),
        rows("t3", "noise", distortion=0.05, gain=0.2, seed=5, **{"defense.budget": 0.123}),
        rows("t4", "codebook", distortion=0.15, gain=0.0, seed=6, **CERTIFIED),
    )
    assert found[0] == list(HEAD)
    names = [row[0] for row in found[2:]]
    assert [name.split(" ")[0] for name in names] == [
        "none", "noise", "codebook", "rounding", "label-only",
    ]  # fmt: skip
    assert "(deploy)" in names[2]
    assert sum("(deploy)" in name for name in names) == 1
    by_name = {row[0].split(" ")[0]: row for row in found[2:]}
    assert by_name["rounding"][1:3] == ["0.2000", "0.70"]
    assert by_name["rounding"][5] == "1.5"  # the larger of train and test, rounded up
    assert by_name["noise"][5] == ""
    assert by_name["noise"][7] == "leaks"
    assert 15 < float(by_name["noise"][3].split(" ")[0]) < 25
    assert float(by_name["noise"][6]) == 0.70


def test_a_starting_point_is_known_by_its_values_and_not_by_three_digits() -> None:
    def noise(budget: float, trial: str, **more: object) -> list[dict[str, object]]:
        knobs = {"defense.budget": budget, **more}
        return rows(trial, "noise", distortion=0.1, gain=0.2, seed=4, **knobs)

    def shown(*parts: list[dict[str, object]]) -> int:
        return sum(row[0].startswith("noise") for row in cells(*parts))

    assert shown(noise(0.015, "t1")) == 1
    assert shown(noise(0.01504, "t1")) == 0
    assert shown(noise(0.015, "t1"), noise(0.01504, "t2")) == 1
    assert shown(noise(0.015, "t1", **{"defense.law": "sphere", "defense.randomness": "keyed"})) == 1
    assert shown(noise(0.015, "t1", **{"defense.law": "gaussian"})) == 0
    assert shown(noise(0.015, "t1", **{"defense.randomness": "fresh"})) == 0


def test_a_setting_outside_the_constraints_says_so() -> None:
    one = rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **{"defense.decimals": 1, **CERTIFIED})
    far = cells(one, max_confidence_distortion=0.3)
    assert [row[0].endswith("(outside the constraints)") for row in far[2:]] == [False, False, True]
    assert far[-1][0].startswith("label-only")
    lossy = cells([row | {"protected_accuracy": 0.5} for row in one])
    (name,) = (row[0] for row in lossy if row[0].startswith("rounding"))
    assert name.endswith("(outside the constraints)")


@pytest.mark.parametrize(
    ("page", "study", "shown"),
    [
        ("README.md", "digits", SHOWN),
        ("study/FINDINGS.md", "digits", SHOWN),
        ("study/FINDINGS.md", "mnist", ALSO),
        ("study/FINDINGS.md", "fashion-mnist", ALSO),
    ],
)
def test_tables_on_pages_are_those_of_the_committed_records(
    page: str, study: str, shown: tuple[str, ...]
) -> None:
    table = extract(Findings.of(load(ROOT / "study" / "results" / study)), shown)
    assert table in (ROOT / page).read_text()
