"""What texts say of how many different answers a setting gives, beside its label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from study.analysis.distinct import ONE_A_LABEL
from study.records.curves import FACES

ONE = "one answer a label: the label's information, with softer scores"


def answers_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Different answers on ``train`` and ``test`` images, ``labels``, and ``one_a_label``; None if unknown.

    Args:
        row: of a ``distinct_table``.
    """
    found: dict[str, Any] = {
        name: _count(row[f"distinct_releases{ending}"]) for name, ending in FACES.items()
    }
    labels = [_count(row[f"distinct_labels{ending}"]) for ending in FACES.values()]
    known = [count for count in labels if count is not None]
    one = row[ONE_A_LABEL]
    return found | {
        "labels": max(known, default=None),
        "one_a_label": None if pd.isna(one) else bool(one),
    }


def _count(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def answers_text(answers: Mapping[str, Any]) -> str | None:
    """A sentence on :func:`answers_of`; None if nothing is known."""
    if answers["one_a_label"]:
        counted = "" if answers["train"] is None else f" ({counts_text(answers)})"
        return f"{ONE}{counted}"
    return None if answers["train"] is None else counts_text(answers)


def counts_text(answers: Mapping[str, Any]) -> str:
    """``36 different answers to private train images, 21 to test images, of 5 labels``."""
    test = "" if answers["test"] is None else f", {answers['test']} to test images"
    return (
        f"{answers['train']} different answers to private train images{test}, of {answers['labels']} labels"
    )


def brief(answers: Mapping[str, Any]) -> str | None:
    """The same in a few words."""
    if answers["one_a_label"]:
        return "one answer a label"
    known = [answers[name] for name in FACES if answers[name] is not None]
    return f"{max(known)} different answers of {answers['labels']} labels" if known else None
