"""Joint training of a trial's attackers gives the records of separate training, within a tolerance."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mipoison.attacks.decoder import Decoder
from mipoison.attacks.robust import Robust
from mipoison.config import ConfigError
from mipoison.storage.artifacts import ArtifactStore
from study.records.schema import to_table
from study.settings.study_settings import StudySettings, differences
from study.trial import joint_training as together
from study.trial.joint_training import trains_jointly
from study.trial.preparation import prepare_scene
from study.trial.spec import TrialResult, TrialSpec
from study.trial.worker import run_trial
from tests.study.trial import helpers
from tests.study.trial.helpers import SEEDS, spec_of

ATTACKERS = (
    "passive", "raw", "mismatched-loss", "noise", "softmax", "rounding", "label-only", "robust",
    "early-stopping", "mismatched-architecture", "ridge",
)  # fmt: skip
COSTS = ("seconds_", "peak_memory_mb", "stacked_members")
SHARES = ("attack_accuracy", "cycle_accuracy", "open_accuracy", "clean_attack_accuracy")
Record = dict[str, Any]


def scene(seed: int) -> dict[str, Any]:
    return helpers.scene(seed, limit=120, victim_steps=40, decoder_steps=30, decoder_batch=16)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    for seed in SEEDS:
        prepare_scene(scene(seed), str(root), None)
    return root


def spec(root: Path, stacked: str, **more: Any) -> TrialSpec:
    values = dict(attackers=ATTACKERS, scenes=tuple(scene(s) for s in SEEDS), stacked=stacked)
    return spec_of(root, "noise", {"budget": 0.05}, **values | more)


def run(prepared: Path, folder: Path, stacked: str, **more: Any) -> TrialResult:
    return run_trial(spec(Path(shutil.copytree(prepared, folder / "root")), stacked, **more))


@pytest.fixture(scope="module")
def both(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialResult, TrialResult]:
    return tuple(run(prepared, tmp_path_factory.mktemp(s), s) for s in ("off", "on"))  # type: ignore[return-value]


def assert_records_agree(one: Record, other: Record) -> None:
    """Texts are equal, shares of images within three of 100, other numbers within 2 %."""
    assert set(one) == set(other)
    for name, a in one.items():
        b = other[name]
        if name.startswith(COSTS) or name.endswith("_ms_per_sample"):
            continue
        if isinstance(a, float) and b is not None:
            near = dict(abs=0.03) if name.startswith(SHARES) else dict(rel=0.02, abs=2e-3)
            assert b == pytest.approx(a, **near), f"{one['attack']}, seed {one['seed']}: {name}"
        else:
            assert a == b, name


def test_the_records_of_training_one_by_one(both: tuple[TrialResult, TrialResult]) -> None:
    alone, shared = both
    assert {r["status"] for r in [*alone.records, *shared.records]} == {"ok"}
    for one, other in zip(alone.records, shared.records, strict=True):
        assert_records_agree(one, other)
    assert set(alone.pictures) == set(shared.pictures)


def test_who_was_trained_with_whom(both: tuple[TrialResult, TrialResult]) -> None:
    """Equal networks train jointly over seeds and views; the deeper one separately, the closed form alone."""
    alone, shared = both
    assert {r["stacked_members"] for r in alone.records} == {1}
    members = {r["attack"]: r["stacked_members"] for r in shared.records}
    assert members == {n: 18 for n in ATTACKERS} | {"mismatched-architecture": 2, "ridge": 1}
    rows = [r | {"study": "s", "trial": "t", "attempt": 0} for r in shared.records]
    assert to_table(rows)["stacked_members"].to_pylist() == [r["stacked_members"] for r in shared.records]


def test_one_attacker_s_failure_is_its_own(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker fails in its queries, during the training, or with non-finite numbers."""
    pairs, loss = Decoder.pairs, Robust.loss

    def failing_pairs(self: Decoder, *args: Any) -> Any:
        c, x = pairs(self, *args)
        if self.config.view == "softmax":
            raise RuntimeError("no answer")
        return (c * torch.nan, x) if self.config.view == "rounding" else (c, x)

    def failing_loss(self: Robust, *args: Any) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls >= 5:
            raise RuntimeError("in the middle")
        return loss(self, *args)

    monkeypatch.setattr(Decoder, "pairs", failing_pairs)
    monkeypatch.setattr(Robust, "loss", failing_loss)
    names = ("passive", "softmax", "rounding", "robust", "raw")
    failed = run(prepared, tmp_path / "a", "on", attackers=names, scenes=(scene(0),)).records
    monkeypatch.undo()
    told = {r["attack"]: (r["status"], r["error"]) for r in failed}
    assert told["softmax"] == ("failed", "RuntimeError: no answer")
    assert told["rounding"][0] == "failed"
    assert "finite pixels" in told["rounding"][1]
    assert told["robust"] == ("failed", "RuntimeError: in the middle")
    assert told["passive"] == told["raw"] == ("ok", None)
    good = run(prepared, tmp_path / "b", "off", attackers=("passive", "raw"), scenes=(scene(0),)).records
    for one in good:
        other = next(r for r in failed if r["attack"] == one["attack"])
        assert_records_agree(one, other)


def test_finished_episodes_are_read_back_and_not_mixed_with_the_others(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(prepared, tmp_path / "root"))
    names = ("passive", "raw")
    first = run_trial(spec(root, "on", attackers=names)).records
    monkeypatch.setattr(together, "train_many", lambda jobs: [] if not jobs else pytest.fail("trained again"))
    assert run_trial(spec(root, "on", attackers=names)).records == first
    monkeypatch.undo()
    made = ArtifactStore._store
    kinds: list[str] = []
    monkeypatch.setattr(ArtifactStore, "_store", lambda self, k, *a: (kinds.append(k), made(self, k, *a))[1])
    alone = run_trial(spec(root, "off", attackers=names)).records
    assert kinds.count("episode") == 4  # separate training stores episodes of its own
    assert {r["stacked_members"] for r in alone} == {1}


def test_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for gpu in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert [trains_jointly(s) for s in ("on", "off", "auto")] == [True, False, gpu]
    assert StudySettings().stacked == "auto"
    with pytest.raises(ConfigError, match=r"unknown stacked 'yes'.*auto, off, on"):
        StudySettings(stacked="yes")  # type: ignore[arg-type]


def test_a_resumed_study_shares_it() -> None:
    """Records depend on the setting; a study from before the setting existed resumes with the default."""
    now = StudySettings().identity()
    assert differences(now, StudySettings(stacked="on").identity()) == ["stacked: 'auto' -> 'on'"]
    older = {k: v for k, v in now.items() if k != "stacked"}
    assert StudySettings().changes(older) == []
    assert StudySettings(stacked="on").changes(older) == ["stacked: 'auto' -> 'on'"]
