"""Bounds of the measured columns of a record: shares, errors of pixels in [0, 1], counts, times."""

from __future__ import annotations

import functools
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mipoison.metrics import half_samples
from mipoison.metrics.distinct import DISTINCT_COLUMNS
from mipoison.metrics.estimated_limit import ESTIMATED_LIMIT_COLUMNS
from mipoison.metrics.identification import IDENTIFICATION_COLUMNS
from mipoison.metrics.leakage import PERCENTILE_COLUMNS
from study.records.reading import Unreadable
from study.records.reading.documents import MAX_ATTEMPT

ROUNDING = 1e-3
"""Tolerance for sums and norms in single precision."""
SHARE = (0.0, 1.0)
CORRELATION = (-1 - ROUNDING, 1 + ROUNDING)
DIFFERENCE = (-1.0, 1.0)
"""Difference of two shares."""
ERROR = (0.0, 1 + ROUNDING)
"""Mean squared difference of pixels in [0, 1]."""
DISTANCE = (0.0, math.sqrt(2) + ROUNDING)
"""l2 distance of two confidence vectors."""
SQUARED_DISTANCE = (0.0, 2 + ROUNDING)
"""Squared l2 distance of a confidence vector and a one-hot vector: the Brier score."""
GAIN = (-1e9, 1.0)
"""1 minus the ratio of two errors, of which the denominator may be small."""
AMOUNT = (0.0, 1e12)
"""Seconds, megabytes, errors on another pixel scale: the bound is beyond any real value."""
NATS = (-ROUNDING, 1e3)
COUNT = (1, 2**31)


def _both(*names: str) -> tuple[str, ...]:
    """The columns on private training images and those on test images."""
    return (*names, *(f"{name}_test" for name in names))


BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("model_accuracy", "protected_accuracy", "label_agreement", "label_recovery", "ece",
         "attack_set_label_agreement", "attack_accuracy", "attack_accuracy_test", "cycle_accuracy",
         "open_accuracy", "evaluator_accuracy", "clean_attack_accuracy", "top2_agreement", "top5_agreement",
         "clean_ece", "hidden_channel_p", *IDENTIFICATION_COLUMNS,
         *_both("certified_identification", "share_in_small_cells")),
        SHARE),
    **dict.fromkeys(
        ("rank_correlation", "tail_rank_correlation", "ssim", "alignment_before", "alignment_after"),
        CORRELATION),
    "excess_attack_accuracy": DIFFERENCE,
    **dict.fromkeys(
        ("reconstruction_error", "reconstruction_error_test", "mean_image_error",
         "clean_reconstruction_error", *_both("certified_error", "certified_tolerance"),
         *PERCENTILE_COLUMNS, *half_samples.COLUMNS, *half_samples.TEST_COLUMNS, *ESTIMATED_LIMIT_COLUMNS),
        ERROR),
    **dict.fromkeys(("confidence_distortion", "attack_set_distortion", "repeat_query_distance"), DISTANCE),
    **dict.fromkeys(
        ("reconstruction_skill", "excess_leakage", *_both("certified_excess", "written_excess")), GAIN),
    **dict.fromkeys(
        ("reconstruction_error_paper_scale", "poison_ms_per_sample", "inference_ms_per_sample",
         "seconds_prepare", "seconds_poison", "seconds_attack", "seconds_evaluate",
         "peak_memory_mb"), AMOUNT),
    **dict.fromkeys(("kl", "log_loss", "clean_log_loss"), NATS),
    **dict.fromkeys(("brier_score", "clean_brier_score"), SQUARED_DISTANCE),
    **dict.fromkeys(
        ("n_classes", "stacked_members", *_both("smallest_cell", "pool_size"), *DISTINCT_COLUMNS), COUNT),
    "queries": (0, 2**53),
    "seed": (0, 2**31 - 1),
    "attempt": (0, MAX_ATTEMPT - 1),
}  # fmt: skip
"""Column -> least and greatest value. Columns of configurations (``defense.``, ``attack.``, ``scene.``) are
checked by the configurations themselves."""
LARGEST = 1e18
"""Bound of any other number: its square and sums of it stay finite."""


@functools.lru_cache(maxsize=64)
def _limits(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest values of the columns, as two arrays (n, 1)."""
    pairs = np.array([BOUNDS.get(name, (-LARGEST, LARGEST)) for name in names], float).reshape(-1, 2)
    return pairs[:, :1], pairs[:, 1:]


def check_bounds(table: pa.Table) -> None:
    """Check that every number lies within its column's bounds.

    All columns are checked in one array operation: for the 20 rows of a trial, a call for each column would
    cost more than the comparisons.

    Raises:
        Unreadable: the first column with a value out of bounds.
    """
    names = tuple(f.name for f in table.schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type))
    if not names or not len(table):
        return
    chunks = [chunk.cast(pa.float64(), safe=False) for name in names for chunk in table.column(name).chunks]
    together = pa.chunked_array(chunks, pa.float64())
    values = together.to_numpy().reshape(len(names), len(table))  # missing values become NaN
    least, most = _limits(names)
    with np.errstate(invalid="ignore"):
        outside = (values < least) | (values > most)
    if not outside.any() and pc.all(pc.is_finite(together)).as_py() is not False:
        return
    for i, name in enumerate(names):
        column = table.column(name)
        if pa.types.is_floating(column.type) and pc.all(pc.is_finite(column)).as_py() is False:
            raise Unreadable(f"column {name} has values that are not finite")
        if outside[i].any():
            found = pc.min_max(column).as_py()
            seen = f"from {found['min']:.6g} to {found['max']:.6g}"
            raise Unreadable(f"{name} {seen}: outside {least[i, 0]:.6g} to {most[i, 0]:.6g}")
