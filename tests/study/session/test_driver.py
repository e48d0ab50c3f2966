"""Studies on the local executor from settings to report: files, interruptions, resuming, names."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from mipoison import scene as scenes_module
from mipoison.attacks.class_mean import ClassMean
from mipoison.attacks.decoder import Decoder
from mipoison.config import ConfigError, Knob
from mipoison.data.splits import make_split
from mipoison.defenses.rounding import RoundingConfig
from mipoison.protocols import ThreatModel
from mipoison.scene import SceneConfig
from study import pareto
from study.analysis.frontier import frontier_table
from study.executors import local
from study.executors.base import Ask, Tell
from study.executors.local import LocalExecutor
from study.records.constraints import Constraints
from study.session.driver import failed_share, run_study
from study.session.opening import open_study
from study.session.study import Study
from study.settings.study_settings import StudySettings
from study.trial import worker
from study.trial.failure import FailureKind, TrialFailure
from study.trial.preparation import prepare_scene
from study.trial.run import run_and_record
from study.trial.spec import TrialSpec

TINY: dict[str, Any] = dict(
    seeds=2,
    limit=100,
    victim_steps=30,
    decoder_steps=20,
    decoder_width=4,
    defenses=("noise", "rounding"),
    attackers=("class-mean", "passive", "label-only"),
    executor="local",
)


def command(root: Path, *more: str, **changes: Any) -> list[str]:
    out = ["--storage", str(root), "--no-learning-curves", *more]
    for name, value in (TINY | {"name": "s"} | changes).items():
        values = value if isinstance(value, tuple) else (value,)
        out += [] if value is None else [f"--{name.replace('_', '-')}", *map(str, values)]
    return out


def opened(root: Path, **changes: Any) -> Study:
    return open_study(StudySettings(**TINY | {"storage": str(root)} | changes), Console(file=io.StringIO()))


def episodes(root: Path, name: str = "s") -> pd.DataFrame:
    """All episodes, read with pandas alone."""
    frames = [
        pq.read_table(path).to_pandas() for path in sorted((root / name / "episodes").glob("*.parquet"))
    ]
    return pd.concat(frames, ignore_index=True)


def numbers(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Episode id -> record without the columns that differ between runs."""
    cost = [c for c in frame if c.startswith("seconds_") or c.endswith("_ms_per_sample")]
    kept = frame.drop(columns=[*cost, "peak_memory_mb", "study", "trial", "attempt"]).astype(object)
    return {r["episode_id"]: r for r in kept.where(kept.notna(), None).to_dict("records")}


def files(root: Path, name: str = "s") -> set[str]:
    return {p.relative_to(root / name).as_posix() for p in (root / name).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root with the models of both seeds and no episodes."""
    root = tmp_path_factory.mktemp("prepared")
    for scene in StudySettings(**TINY).scenes():
        prepare_scene(scene.flat(), str(root), None)
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "root"))


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three trials that ran without interruption, and its output."""
    root = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("undisturbed") / "root"))
    assert pareto.main(command(root, trials=3)) == 0
    return root


class LosingExecutor(LocalExecutor):
    """An executor that runs the anchors and loses every trial."""

    def __init__(self, lost: list[TrialSpec]) -> None:
        self.lost = lost

    def search(self, n: int, ask: Ask, tell: Tell) -> None:
        for _ in range(n):
            spec = ask()
            if spec is None:
                return
            self.lost.append(spec)
            tell(spec, TrialFailure(kind=FailureKind.MACHINE, message="WorkerCrashedError: killed"))


# ---------------------------------------------------------------- what a study leaves


def test_every_file_is_there(undisturbed: Path) -> None:
    found = files(undisturbed)
    trials = {p.removeprefix("trials/").removesuffix(".json") for p in found if p.startswith("trials/")}
    assert {"t0001-noise", "t0002-rounding"} < trials  # each family starts with its default setting
    assert len(trials) == 3
    everything = trials | {"none", "label-only"}
    assert found == {
        "study.json",
        "report.md",
        "report.html",
        "label.json",
        "label.md",
        "optuna.log",
        "frontier.parquet",
        "frontier.png",
        "reconstructions.png",
        *(f"trials/{t}.json" for t in trials),
        *(f"episodes/{t}.a0.parquet" for t in everything),
        *(f"pictures/{t}.npz" for t in everything),
    }
    frame = episodes(undisturbed)
    assert len(frame) == 5 * 2 * 3
    assert set(frame["status"]) == {"ok"}
    assert frame["episode_id"].is_unique
    assert frame["excess_leakage"].notna().all()  # anchors included
    assert frame["check.below_label_only"].notna().all()


def test_the_frontier_follows_from_the_records(undisturbed: Path) -> None:
    frame = episodes(undisturbed)
    expected = frontier_table(frame.sample(frac=1, random_state=0), Constraints())
    stored = pq.read_table(undisturbed / "s" / "frontier.parquet").to_pandas()
    # Written to Parquet and read back, so that both have the same column types.
    sink = io.BytesIO(expected.to_parquet(index=False))
    pd.testing.assert_frame_equal(stored, pq.read_table(sink).to_pandas())
    assert len(stored) >= 1
    assert "none" in set(stored["trial"])  # nothing has less distortion


def test_pictures_show_the_first_seed(undisturbed: Path) -> None:
    scene = StudySettings(**TINY).scenes()[0]
    private = make_split("digits", auxiliary="same", seed=0, limit=scene.limit).private_train
    rows = [i for label in range(5) for i in np.flatnonzero(private.y_N.numpy() == label)[:2]]
    truth = (private.x_NCHW[rows] * 255).round().byte().numpy()
    pictures = list((undisturbed / "s" / "pictures").glob("*.npz"))
    assert pictures
    for path in pictures:
        with np.load(path, allow_pickle=False) as archive:
            assert set(archive.files) == {"truth", "class-mean", "passive", "label-only"}
            np.testing.assert_array_equal(archive["truth"], truth)
            assert archive["passive"].shape == truth.shape
    for name in ("frontier.png", "reconstructions.png"):
        with Image.open(undisturbed / "s" / name) as image:
            assert min(image.size) > 200
            assert len(np.unique(np.asarray(image.convert("L")))) > 10  # the figure is not empty


def test_pictures_of_a_failed_attack_are_not_another_seeds(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = worker.attack_and_measure

    def fail(episode: Any, *args: Any) -> Any:
        if episode.scene.seed == 0 and episode.attack == "passive":
            raise RuntimeError("out of memory")
        return attack(episode, *args)

    monkeypatch.setattr(worker, "attack_and_measure", fail)
    run_study(opened(root, name="s", trials=0), LosingExecutor([]))
    with np.load(root / "s" / "pictures" / "none.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"truth", "class-mean", "label-only"}  # of seed 0


# ---------------------------------------------------------------- interrupted and resumed


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("when", ["between trials", "within a trial"])
def test_an_interrupted_study_is_finished_by_resume(
    root: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    when: str,
) -> None:
    ran: list[str] = []
    attack = worker.attack_and_measure
    # Two anchors and the first trial are twelve and six episodes; one more of the second trial is finished.
    last = {"between trials": 18, "within a trial": 19}[when]

    def counted(episode: Any, *args: Any) -> Any:
        if len(ran) == last and not resumed:
            raise KeyboardInterrupt
        result = attack(episode, *args)
        ran.append(episode.episode_id)
        return result

    def stopped(spec: TrialSpec) -> Any:
        if spec.trial.startswith("t0002") and not resumed and when == "between trials":
            raise KeyboardInterrupt
        return run_and_record(spec)

    monkeypatch.setattr(worker, "attack_and_measure", counted)
    monkeypatch.setattr(local, "run_and_record", stopped)
    resumed = False
    assert pareto.main(command(root, trials=3)) == 130
    error = capsys.readouterr().err
    assert "--resume --name s" in error
    assert error.count("\n") == 1
    assert len(ran) == last
    assert {f for f in files(root) if f.startswith("episodes/")} == {
        f"episodes/{t}.a0.parquet" for t in ("none", "label-only", "t0001-noise")
    }
    assert "trials/t0002-rounding.json" in files(root)

    resumed = True
    scenes_module._remembered.cache_clear()  # as a new process would start
    assert pareto.main(command(root, "--resume", trials=3)) == 0
    frame = episodes(root)
    assert set(Counter(ran).values()) == {1}
    assert sorted(ran) == sorted(frame["episode_id"])
    attempts = dict(zip(frame["trial"], frame["attempt"], strict=True))
    assert attempts.pop("t0002-rounding") == 1
    assert len(attempts) == 4
    assert set(attempts.values()) == {0}
    again, expected = numbers(frame), numbers(episodes(undisturbed))
    shared = set(again) & set(expected)
    assert len(shared) >= 16  # anchors and both defaults; the third trial is sampled again
    for episode_id in shared:
        assert again[episode_id] == expected[episode_id]
    stored = pd.read_parquet(root / "s" / "frontier.parquet")
    assert list(stored["trial"]) == list(frontier_table(frame, Constraints())["trial"])


@pytest.mark.usefixtures("no_report")
def test_more_trials_continue_a_finished_study(undisturbed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(undisturbed, tmp_path / "root"))
    before = {
        p: (root / "s" / p).read_bytes()
        for p in files(root)
        if p.startswith(("episodes/", "trials/", "study"))
    }
    assert pareto.main(command(root, "--resume", trials=3)) == 0  # nothing left to do
    assert len(episodes(root)) == 30
    assert pareto.main(command(root, "--resume", trials=4)) == 0
    frame = episodes(root)
    assert len(frame) == 36
    assert frame["episode_id"].is_unique
    assert [t for t in sorted(set(frame["trial"])) if t.startswith("t0004-")]
    assert all((root / "s" / p).read_bytes() == data for p, data in before.items())


def test_families_not_yet_seen_are_still_tried_first_after_a_resume(
    undisturbed: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(undisturbed, tmp_path / "root"))
    for path in [*(root / "s" / "trials").glob("t000[23]*"), *(root / "s" / "episodes").glob("t000[23]*")]:
        path.unlink()  # as if only one trial had been requested
    study = opened(root, name="s", resume=True, trials=2)
    lost: list[TrialSpec] = []
    run_study(study, LosingExecutor(lost))
    assert [(s.trial, dict(s.knobs)) for s in lost] == [("t0002-rounding", {"decimals": 2})]


def test_resume_with_other_settings_lists_them(undisturbed: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(undisturbed, name="s", resume=True, seeds=3, attackers=("passive",), trials=99)
    text = str(caught.value)
    assert "attackers: ['class-mean', 'passive', 'label-only'] -> ['passive']" in text
    assert "seeds: 2 -> 3" in text
    assert "trials" not in text


def test_an_existing_name_is_not_overwritten(undisturbed: Path) -> None:
    before = files(undisturbed)
    with pytest.raises(ConfigError, match=r"study 's' exists in .*--resume.*--name"):
        opened(undisturbed, name="s")
    assert files(undisturbed) == before


def test_default_names_are_numbered_and_resume_takes_the_latest(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        study = opened(tmp_path)
        study.records.write_json(
            "study.json", {"settings": study.settings.identity()}
        )  # as if the study had started
        names.append(study.records.study)
    assert names == ["digits-same", "digits-same-2", "digits-same-3"]
    assert opened(tmp_path, auxiliary="disjoint").records.study == "digits-disjoint"
    assert opened(tmp_path, resume=True).records.study == "digits-same-3"


@pytest.mark.parametrize("name", [None, "nope"])
def test_there_must_be_a_study_to_resume(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(ConfigError, match=f"no study '{name or 'digits-same'}'"):
        opened(tmp_path, name=name, resume=True)
    assert list(tmp_path.rglob("*.json")) == []


# ---------------------------------------------------------------- failures


def test_lost_trials_are_recorded_as_failures(root: Path) -> None:
    study = opened(root, name="s", trials=2)
    frame = run_study(study, LosingExecutor(lost := []))
    assert [s.trial for s in lost] == ["t0001-noise", "t0002-rounding"]
    bad = frame[frame["trial"].isin([s.trial for s in lost])]
    assert len(bad) == 12
    assert set(bad["status"]) == {"failed"}
    assert set(bad["error"]) == {"LostError: WorkerCrashedError: killed"}
    assert bad["reconstruction_error"].isna().all()
    assert failed_share(frame) == 0.5
    assert study.running == {}
    assert not any(t.state.name == "RUNNING" for t in study.search.study.trials)
    # The settings are not at fault: a resumed study runs them again.
    later = opened(root, name="s", trials=2, resume=True)
    assert set(later.finished) == {"none", "label-only"}
    assert [(begun.trial, begun.attempt) for begun in later.unfinished] == [
        ("t0001-noise", 0),
        ("t0002-rounding", 0),
    ]
    frame = run_study(later, LocalExecutor())
    assert set(frame["status"]) <= {"ok", "cut"}
    assert set(frame.loc[frame["trial"].str.startswith("t"), "attempt"]) == {1}
    assert frame["episode_id"].is_unique
    assert opened(root, name="s", trials=2, resume=True).unfinished == []


def test_a_space_with_fewer_settings_than_trials_does_not_crash(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six settings; more were asked for."""
    monkeypatch.setattr(RoundingConfig, "KNOBS", {"steps": Knob(low=2, high=7, integer=True)})
    study = opened(root, name="s", trials=9, defenses=("rounding",))
    run_study(study, LosingExecutor(lost := []))
    assert {s.knobs["steps"] for s in lost if "steps" in s.knobs} == {2, 3, 4, 5, 6, 7}
    assert [dict(s.knobs) for s in lost if "steps" not in s.knobs] == [
        {"decimals": 2},
        {"decimals": 1},
    ]  # starts
    assert not any(t.state.name == "RUNNING" for t in study.search.study.trials)


def test_more_than_half_failed_is_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: Any, *args: Any, **more: Any) -> None:
        raise RuntimeError("[/bold] out of memory")

    monkeypatch.setattr(ClassMean, "fit", fail)
    monkeypatch.setattr(Decoder, "prepare", fail)
    assert pareto.main(command(root, trials=1)) == 1
    output = capsys.readouterr().out
    assert "18 episodes, 100% failed" in output
    frame = episodes(root)
    assert set(frame["status"]) == {"failed"}
    assert len(pq.read_table(root / "s" / "frontier.parquet")) == 0


@pytest.mark.usefixtures("no_report")
def test_half_failed_is_not(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare = Decoder.prepare

    def fail(self: Decoder, *args: Any, **more: Any) -> Any:
        if self.config.view == "label-only":
            raise RuntimeError("out of memory")
        return prepare(self, *args, **more)

    fit_mean = ClassMean.fit

    def fail_undefended(self: ClassMean, *args: Any, known: ThreatModel, **more: Any) -> None:
        if known.defense == "none":
            raise RuntimeError("out of memory")
        fit_mean(self, *args, known=known, **more)

    monkeypatch.setattr(Decoder, "prepare", fail)
    monkeypatch.setattr(ClassMean, "fit", fail_undefended)
    assert pareto.main(command(root, trials=0, seeds=1)) == 0
    assert "6 episodes, 50% failed" in capsys.readouterr().out
    assert Counter(episodes(root)["status"]) == {"ok": 3, "failed": 3}


def test_the_path_of_the_data_is_not_part_of_a_scene() -> None:
    """A resumed study may read its data from another path; only the content must be the same."""
    assert "data_root" not in SceneConfig.field_kinds()
    assert "data_root" not in StudySettings(**TINY).identity()
