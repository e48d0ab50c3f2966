"""Neither the second trial of a study nor a resumed study trains a victim, evaluator or substitute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mipoison import scene as scenes_module
from mipoison.defenses import substitutes
from mipoison.storage.artifacts import ArtifactStore
from study.pareto import main
from study.trial.preparation import prepare_scene
from study.trial.run import run_and_record
from study.trial.spec import TrialSpec
from study.trial.worker import run_trial
from tests.study.trial import helpers
from tests.study.trial.helpers import SEEDS, spec_of

ROOT = Path(__file__).parents[3]
PARTS = ("victim", "evaluator", "open-evaluator", "substitute")
ARGUMENTS = [
    "--seeds", "2", "--limit", "60", "--victim-steps", "10", "--decoder-steps", "5", "--decoder-width", "2",
    "--defenses", "lpa", "noise", "--attackers", "passive", "--name", "s",
    "--no-learning-curves",
]  # fmt: skip


SIZES = dict(limit=60, victim_width=4, victim_hidden=8, victim_steps=10, decoder_width=2, decoder_steps=5)


def scene(seed: int) -> dict[str, Any]:
    return helpers.scene(seed, **SIZES)


def spec(root: Path, trial: str, defense: str, **knobs: Any) -> TrialSpec:
    scenes = tuple(scene(s) for s in SEEDS)
    return spec_of(root, defense, knobs, trial=trial, attackers=("passive",), scenes=scenes)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the artifacts made, by kind, and as ``trainings`` the models that scenes train."""
    counts: Counter[str] = Counter()
    store, train = ArtifactStore._store, scenes_module.train

    def stored(self: ArtifactStore, kind: str, *rest: Any) -> None:
        counts[kind] += 1
        store(self, kind, *rest)

    def trained(*args: Any, **options: Any) -> Any:
        counts["trainings"] += 1
        return train(*args, **options)

    monkeypatch.setattr(ArtifactStore, "_store", stored)
    for module in (scenes_module, substitutes):
        monkeypatch.setattr(module, "train", trained)
    return counts


@pytest.mark.parametrize("memory", ["kept", "lost"])
def test_the_second_trial_makes_its_episodes_and_nothing_else(
    made: Counter[str], tmp_path: Path, memory: str
) -> None:
    """Parametrised: the worker has the scenes in memory, or reads them from the store."""
    scenes_module._remembered.cache_clear()
    assert {r["status"] for r in run_trial(spec(tmp_path, "t1", "lpa", rounds=1)).records} == {"ok"}
    assert made == {**dict.fromkeys(PARTS, 2), "episode": 2, "trainings": 8}
    made.clear()
    if memory == "lost":
        scenes_module._remembered.cache_clear()
    assert {r["status"] for r in run_trial(spec(tmp_path, "t2", "lpa", rounds=2)).records} == {"ok"}
    assert made == {"episode": 2}
    scenes_module._remembered.cache_clear()


def test_the_first_trial_of_a_prepared_study_trains_none_either(made: Counter[str], tmp_path: Path) -> None:
    scenes_module._remembered.cache_clear()
    for seed in SEEDS:
        prepare_scene(scene(seed), str(tmp_path), None)
    assert (made["substitute"], made["trainings"]) == (4, 10)  # both features
    made.clear()
    for trial, defense in (("t1", "noise"), ("t2", "lpa"), ("t3", "rounding")):
        run_and_record(spec(tmp_path, trial, defense))
    assert made == {"episode": 6}
    scenes_module._remembered.cache_clear()


def artifacts(root: Path) -> dict[str, tuple[int, str]]:
    """Name -> (time of writing, kind) of every stored artifact."""
    found = {}
    for path in (root / "artifacts").iterdir():
        found[path.name] = (path.stat().st_mtime_ns, path.name.rsplit("-", 1)[0])
    return found


def assert_only_episodes_came(before: dict[str, tuple[int, str]], after: dict[str, tuple[int, str]]) -> None:
    assert {name: after.get(name) for name in before} == before, "something was made again"
    assert {kind for name, (_, kind) in after.items() if name not in before} == {"episode"}


@pytest.mark.usefixtures("no_report")
def test_a_resumed_study_in_another_process_reads_them(made: Counter[str], tmp_path: Path) -> None:
    """Of two processes the first writes every artifact before its first trial; none is written again."""
    scenes_module._remembered.cache_clear()
    arguments = [*ARGUMENTS, "--executor", "local", "--storage", str(tmp_path)]
    assert main([*arguments, "--trials", "1"]) == 0
    before = artifacts(tmp_path)
    run = subprocess.run(
        [sys.executable, str(ROOT / "study" / "pareto.py"), *arguments, "--trials", "3", "--resume"],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert_only_episodes_came(before, artifacts(tmp_path))
    kinds = Counter(kind for _, kind in artifacts(tmp_path).values())
    assert kinds == {"victim": 2, "evaluator": 2, "open-evaluator": 2, "substitute": 4, "episode": 20}
    first = min(p.stat().st_mtime_ns for p in (tmp_path / "s" / "episodes").glob("t*.parquet"))
    parts = [when for when, kind in artifacts(tmp_path).values() if kind in PARTS]
    assert max(parts) < first
    assert json.loads((tmp_path / "s" / "study.json").read_text())["settings"]["stacked"] == "auto"


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(560)
def test_trials_on_ray_read_them(tmp_path: Path) -> None:
    """With Tune trials in other processes, every artifact is written once, before the first trial."""
    with tempfile.TemporaryDirectory(prefix="mip", dir="/tmp", ignore_cleanup_errors=True) as folder:
        drop = ("RAY_", "PYTEST_", "MIPOISON_")
        keep = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
        run = subprocess.run(
            [
                sys.executable, str(ROOT / "study" / "pareto.py"), *ARGUMENTS, "--trials", "3",
                "--workers", "0", "--no-dashboard", "--storage", str(tmp_path),
            ],
            env=keep | {"HOME": folder, "TMPDIR": folder, "MIPOISON_RAY_TMP": f"{folder}/r"},
            capture_output=True, text=True, timeout=540,
        )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    kinds = Counter(kind for _, kind in artifacts(tmp_path).values())
    assert kinds == {"victim": 2, "evaluator": 2, "open-evaluator": 2, "substitute": 4, "episode": 20}
    first = min(p.stat().st_mtime_ns for p in (tmp_path / "s" / "trials").glob("t*.json"))
    parts = [when for when, kind in artifacts(tmp_path).values() if kind in PARTS]
    assert max(parts) < first, "a trial made a part"
