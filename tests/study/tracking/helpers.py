"""A small study with copies for other tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from study import pareto
from tests.reportless import without_report

TINY = [
    "--executor",
    "local",
    "--no-learning-curves",
    "--seeds",
    "2",
    "--limit",
    "100",
    "--victim-steps",
    "30",
    "--decoder-steps",
    "20",
    "--decoder-width",
    "4",
    "--defenses",
    "noise",
    "rounding",
    "--attackers",
    "passive",
    "label-only",
]


def run(root: Path, *more: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        assert pareto.main([*TINY, "--storage", str(root), "--name", "s", *more]) == 0
