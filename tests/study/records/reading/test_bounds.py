"""Numbers of a record that are outside their column's bounds are refused."""

from __future__ import annotations

import pyarrow as pa
import pytest

from study.records.reading import Unreadable
from study.records.reading.bounds import check_bounds

FINE = {
    "n_classes": [5, 5],
    "attack_accuracy": [0.0, None],
    "reconstruction_error": [0.04, 1.0],
    "seed": [0, 1],
}


def test_what_a_study_measures_is_within() -> None:
    check_bounds(pa.table(FINE))
    check_bounds(pa.table({"defense": ["noise"]}))
    check_bounds(pa.table({"seed": pa.array([], pa.int64())}))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("n_classes", 0),
        ("attack_accuracy", 1e308),
        ("attack_accuracy", float("nan")),
        ("attack_accuracy", float("inf")),
        ("reconstruction_error", -1e-3),
        ("reconstruction_error", 1e308),
        ("confidence_distortion", 1e308),
        ("error_percentile.000", 1e308),
        ("seed", -1),
        ("attempt", 2**40),
        ("a column of tomorrow", 1e308),
    ],
)
def test_what_no_study_measures_is_refused_by_name(column: str, value: float) -> None:
    with pytest.raises(Unreadable, match=column.replace(".", r"\.")):
        check_bounds(pa.table(FINE | {column: [value, value]}))
