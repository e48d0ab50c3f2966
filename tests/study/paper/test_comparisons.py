"""Ours beside the paper's: an ordering needs an interval without zero."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mipoison.storage.files import Storage
from study.paper.comparisons import verdict
from study.paper.experiments import PaperRow
from study.paper.measured import Measured


def _made(errors: dict[str, list[float]], tmp_path: Path) -> Measured:
    rows = [
        {
            "trial": trial,
            "attack": "passive",
            "status": "ok",
            "seed": s,
            "reconstruction_error": v,
        }
        for trial, values in errors.items()
        for s, v in enumerate(values)
    ]
    return Measured("mnist", {}, pd.DataFrame(rows), Storage(tmp_path), "mnist")


def test_orderings_need_an_interval_without_zero(tmp_path: Path) -> None:
    def row(defense: str, paper: float) -> PaperRow:
        return PaperRow("I", "mnist", defense, (), "passive", paper=(("reconstruction_error", paper),))

    none, mad = row("none", 0.5), row("mad", 0.6)
    for values, expected in (
        ([1.1, 2.11, 3.09], "holds"),
        ([0.9, 1.91, 2.89], "reversed"),
        ([1.5, 1.2, 3.1], "no difference shown"),
        ([1.1, 2.1], "too few seeds"),
    ):
        measured = _made({none.trial: [1.0, 2.0, 3.0], mad.trial: values}, tmp_path)
        assert verdict(mad, none, "reconstruction_error", measured) == expected
    assert verdict(row("pgd", 0.6), none, "reconstruction_error", measured) == "not run"
