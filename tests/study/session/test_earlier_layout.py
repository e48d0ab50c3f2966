"""A study gives the records that it gave before the trial loop, the names and the files were moved.

``earlier_layout/`` holds what the last commit of the flat layout wrote for COMMAND, ``earlier_loop/`` what
the last commit before all of these moves (three trial loops, everything in two folders) wrote for the default
study. Times, memory, versions and the device are not compared. A change that means to change records writes
these files anew and says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from mipoison.attacks import ATTACKS
from mipoison.attacks.mlp import MLPConfig
from mipoison.attacks.ridge import RidgeConfig
from mipoison.config import Config, Knob
from mipoison.defenses import DEFENSES, lpa
from mipoison.defenses.noise import NoiseConfig
from mipoison.defenses.rounding import RoundingConfig
from mipoison.episode import device_name, versions
from study import pareto
from study.settings import study_settings

STORED = Path(__file__).parent / "earlier_layout"
STORED_DEFAULT = Path(__file__).parent / "earlier_loop"
COMMAND = [
    "--trials",
    "4",
    "--seeds",
    "1",
    "--victim-steps",
    "30",
    "--decoder-steps",
    "8",
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


@dataclass(frozen=True, kw_only=True)
class LPAConfig(lpa.LPAConfig):
    """LPA before ``search`` was a field; of the same name, since digests contain it."""

    search: Literal["restarts", "descent"] = "descent"


@pytest.fixture(autouse=True)
def search_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a study searched when the files were written: decimals, not steps; noise on the sphere, LPA by
    the descent alone.

    Ridge and MLP chose among fewer features, and no suite had the class-mean attacker.
    """
    decimals = {"decimals": Knob(low=1, high=6, integer=True, help="digits after the point")}
    monkeypatch.setattr(RoundingConfig, "KNOBS", decimals)
    monkeypatch.setattr(RoundingConfig, "STARTS", ({},))
    monkeypatch.setattr(RoundingConfig, "knobs", Config.knobs)
    budget = {"budget": NoiseConfig.KNOBS["budget"]}
    monkeypatch.setattr(NoiseConfig, "KNOBS", budget)
    monkeypatch.setitem(DEFENSES, "lpa", LPAConfig)
    monkeypatch.setitem(ATTACKS, "ridge", RidgeConfig(inputs="tuned"))
    monkeypatch.setitem(ATTACKS, "mlp", MLPConfig(inputs="all"))
    monkeypatch.setattr(study_settings, "LABEL_ATTACKER", "ridge")  # of both suites: nothing is added


@pytest.mark.timeout(300)
def test_the_records_are_those_of_the_earlier_layout(tmp_path: Path) -> None:
    compare(run(tmp_path, "golden", *COMMAND), STORED)


@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_the_default_study_has_the_records_of_the_earlier_loop(tmp_path: Path) -> None:
    """One trial at a time: with several at once the search depends on which of them ends first."""
    attackers = ["passive", "raw", "mismatched-architecture", "rounding", "label-only", "ridge", "mlp"]
    defenses, objectives = ["rounding", "noise", "lpa", "lfp"], ["distortion", "accuracy", "error"]
    search = ["--trials", "12", "--defenses", *defenses, "--objectives", *objectives]
    compare(run(tmp_path, "default", "--attackers", *attackers, *search), STORED_DEFAULT)


def run(storage: Path, name: str, *more: str) -> Path:
    """The study's folder, after a run in this process."""
    given = ["--executor", "local", "--no-learning-curves", "--no-screen", "--name", name]
    given += ["--storage", str(storage)]
    assert pareto.main([*given, *more]) == 0
    return storage / name


def compare(folder: Path, stored: Path) -> None:
    """Every trial that began, and every measured column of every record, is as it was."""
    left = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}
    assert left == {
        "episodes", "frontier.parquet", "frontier.png", "optuna.log", "pictures", "reconstructions.png",
        "label.json", "label.md", "report.html", "report.md", "study.json", "trials",
    }  # fmt: skip
    before = pd.read_parquet(stored / "episodes.parquet")
    began = json.loads((stored / "trials.json").read_text())
    assert {p.stem: json.loads(p.read_text()) for p in (folder / "trials").glob("*.json")} == began

    now = pd.read_parquet(folder / "episodes").sort_values(["trial", "seed", "attack"]).reset_index(drop=True)
    names = [n for n in before.columns if not n.startswith((*MEASURED_BY_A_CLOCK, "versions", "device"))]
    assert set(names) <= set(now.columns)
    assert len(now) == len(before)
    here = before["versions"].unique().tolist() == [versions()] and set(before["device"]) == {device_name()}
    # Processors of one name train different victims, too. Label-only's distortion is the victim's alone.
    floor = before["defense"] == "label-only"
    victims = [frame.loc[floor, "confidence_distortion"].to_numpy(float) for frame in (before, now)]
    here = here and np.allclose(*victims, rtol=1e-6, atol=0)
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
