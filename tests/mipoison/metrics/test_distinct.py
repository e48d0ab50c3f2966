"""Different answers and labels of a pool, counted; and in the records of a deployment."""

from __future__ import annotations

import torch

from mipoison.metrics.distinct import DISTINCT_COLUMNS, distinct_columns


def test_equal_rows_count_once() -> None:
    clean = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]])
    by_label = torch.eye(3)[[0, 0, 1, 1]]
    assert distinct_columns(by_label, clean) == {"distinct_releases": 2, "distinct_labels": 2}
    assert distinct_columns(clean, clean, "_test") == {"distinct_releases_test": 4, "distinct_labels_test": 2}
    zero = torch.tensor([[1.0, 0.0], [1.0, -0.0]])  # nobody tells the signs of zeros in a printed answer
    assert distinct_columns(zero, zero)["distinct_releases"] == 1


def test_an_empty_pool_has_no_count() -> None:
    none = torch.zeros(0, 3)
    assert set(distinct_columns(none, none).values()) == {None}
    assert {*distinct_columns(none, none), *distinct_columns(none, none, "_test")} == set(DISTINCT_COLUMNS)
