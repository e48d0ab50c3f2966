"""A storage root with trained parts, and two trials run on one rank."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from study.trial.preparation import prepare_scene
from study.trial.spec import TrialResult
from study.trial.worker import run_trial
from tests.study.trial.helpers import DEFENDED, SEEDS, scene, spec_of


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root with both seeds' victims, evaluators and substitutes, and no episode."""
    root = tmp_path_factory.mktemp("prepared")
    for seed in SEEDS:
        prepare_scene(scene(seed), str(root), None)
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "root"))


@pytest.fixture(scope="module")
def alone(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrialResult]:
    """Two defenses, one of which is fitted and couples nothing, on one rank."""
    root = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("alone") / "root"))
    return {name: run_trial(spec_of(root, name, knobs)) for name, knobs in DEFENDED.items()}
