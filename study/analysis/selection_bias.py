"""How much better the selected settings look on the seeds of the search than on seeds it never used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

BIAS = ("worst_reconstruction_error", "worst_attack_accuracy", "excess_leakage")
"""Measures that :func:`selection_bias` compares between the seeds of the search and fresh ones."""


def selection_bias(configurations: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """One row per re-evaluated setting: each measure on the seeds of the search and on fresh ones.

    Columns: trial, defense, knobs, confidence_distortion, then ``<measure>`` and ``<measure>_fresh`` for each
    of BIAS, with ``_low`` and ``_high`` of the excess leakage.

    Settings that were cut are left out: fewer attackers attacked them in the search than on the fresh seeds,
    so that the difference would be that of the attackers.

    Args:
        configurations: the search's ``configuration_table``. fresh: that of the fresh seeds.
    """
    measures = [*BIAS, "excess_leakage_low", "excess_leakage_high"]
    whole = configurations[~configurations["cut"].fillna(False).astype(bool)]
    merged = whole.merge(
        fresh[["trial", *measures]], on="trial", suffixes=("", "_fresh"), validate="one_to_one"
    )
    knobs = [c for c in merged if c.startswith("defense.")]
    kept = ["trial", "defense", *knobs, "confidence_distortion"]
    columns = [*kept, *(name + end for name in measures for end in ("", "_fresh"))]
    return merged[columns].sort_values(["confidence_distortion", "trial"], kind="stable", ignore_index=True)
