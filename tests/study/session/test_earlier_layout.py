"""A small study gives the records that it gave before the packages were laid out in rooms.

``earlier_layout/`` holds what the last commit of the flat layout wrote for COMMAND. A change that means to
change records writes these files anew and says so.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mipoison.episode import device_name, versions
from study import pareto

STORED = Path(__file__).parent / "earlier_layout"
COMMAND = [
    "--executor",
    "local",
    "--trials",
    "4",
    "--seeds",
    "1",
    "--victim-steps",
    "30",
    "--decoder-steps",
    "8",
    "--name",
    "golden",
    "--attackers",
    "passive",
    "label-only",
    "ridge",
    "--defenses",
    "rounding",
    "noise",
    "lpa",
    "lfp",
]
MEASURED_BY_A_CLOCK = ("seconds_", "peak_memory", "poison_ms", "inference_ms")
OTHERWISE = 0.05
"""Accepted relative difference on another processor or torch, since rounding changes the training."""


@pytest.mark.timeout(300)
def test_the_records_are_those_of_the_earlier_layout(tmp_path: Path) -> None:
    assert pareto.main([*COMMAND, "--storage", str(tmp_path)]) == 0
    folder = tmp_path / "golden"
    left = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}
    assert left == {
        "episodes", "frontier.parquet", "frontier.png", "optuna.log", "pictures", "reconstructions.png",
        "report.html", "report.md", "study.json", "trials",
    }  # fmt: skip
    began = json.loads((STORED / "trials.json").read_text())
    assert {p.stem: json.loads(p.read_text()) for p in (folder / "trials").glob("*.json")} == began

    before = pd.read_parquet(STORED / "episodes.parquet")
    now = pd.read_parquet(folder / "episodes").sort_values(["trial", "seed", "attack"]).reset_index(drop=True)
    names = [n for n in before.columns if not n.startswith((*MEASURED_BY_A_CLOCK, "versions", "device"))]
    assert set(names) <= set(now.columns)
    here = before["versions"].unique().tolist() == [versions()] and set(before["device"]) == {device_name()}
    for name in names:
        was, found = before[name], now[name]
        if pd.api.types.is_float_dtype(was) and not here:
            both = was.isna() == found.isna()
            assert both.all(), name
            np.testing.assert_allclose(
                found.dropna().to_numpy(float), was.dropna().to_numpy(float), rtol=OTHERWISE, atol=OTHERWISE
            )
        else:
            pd.testing.assert_series_equal(found, was, check_dtype=False, rtol=1e-6, atol=1e-9)
