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
    "certified_excess": [-0.01, None],
    "certified_identification_test": [1.0, None],
    "smallest_cell": [1, None],
    "written_excess": [-0.01, None],
    "written_z": [-2.5, 40.0],
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
        ("identification_auc_test", 1.1),
        ("estimated_limit_low", -0.1),
        ("top2_agreement", -0.1),
        ("tail_rank_correlation", -1.1),
        ("clean_brier_score", 2.1),
        ("log_loss", -1.0),
        ("attack_accuracy", float("inf")),
        ("reconstruction_error", -1e-3),
        ("reconstruction_error", 1e308),
        ("confidence_distortion", 1e308),
        ("error_percentile.000", 1e308),
        ("seed", -1),
        ("attempt", 2**40),
        ("certified_error", 1.1),
        ("certified_tolerance_test", -1e-9),
        ("certified_excess", 1.1),
        ("certified_identification", 1.01),
        ("written_excess_test", 1.1),
        ("smallest_cell_test", 0),
        ("pool_size", 0),
        ("a column of tomorrow", 1e308),
    ],
)
def test_what_no_study_measures_is_refused_by_name(column: str, value: float) -> None:
    with pytest.raises(Unreadable, match=column.replace(".", r"\.")):
        check_bounds(pa.table(FINE | {column: [value, value]}))
