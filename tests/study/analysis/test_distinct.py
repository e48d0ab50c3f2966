"""One answer a label is seen in the counts, and in older records in a certificate of 0."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from study.analysis.distinct import ONE_A_LABEL, distinct_table

COUNTS = ("distinct_releases", "distinct_releases_test", "distinct_labels", "distinct_labels_test")


def table(*seeds: dict[str, Any]) -> pd.Series:
    rows = [
        {"trial": "t1", "attack": attack, "seed": i, "status": "ok"} | seed
        for i, seed in enumerate(seeds)
        for attack in ("knn", "ridge")
    ]
    return distinct_table(pd.DataFrame(rows)).set_index("trial").loc["t1"]


def counts(*values: int | None) -> dict[str, Any]:
    return dict(zip(COUNTS, values, strict=True))


def certificate(*values: float | None) -> dict[str, Any]:
    return dict(zip(("certified_excess", "certified_excess_test"), values, strict=True)) | {
        "smallest_cell": 3, "smallest_cell_test": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([counts(5, 5, 5, 5), counts(5, 4, 5, 4)], True),
        ([counts(5, 5, 5, 5), counts(5, 6, 5, 5)], False),  # on one pool of one seed
        ([counts(5, 5, 5, 5), counts(None, None, None, None)], None),
        ([certificate(1e-16, 0.0), certificate(-2e-16, 0.0)], True),
        (
            [certificate(0.0, 0.0), certificate(0.0, 0.001)],
            None,
        ),  # it may be one with unlucky cells: not known
        ([certificate(0.0, None)], None),
        ([certificate(0.0, 0.0) | {"smallest_cell": None}], None),  # of noise
        ([certificate(0.0, 0.0) | counts(7, 5, 5, 5)], False),
        ([{}], None),
    ],
)
def test_one_answer_a_label(seeds: list[dict[str, Any]], expected: bool | None) -> None:
    found = table(*seeds)[ONE_A_LABEL]
    assert (None if pd.isna(found) else bool(found)) is expected


def test_counts_are_the_largest_over_the_seeds() -> None:
    found = table(counts(7, 5, 5, 4), counts(6, 9, 4, 5))
    assert [int(found[name]) for name in COUNTS] == [7, 9, 5, 5]
