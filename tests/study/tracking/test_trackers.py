"""Trackers: their copies equal the records, and a failing tracker does not affect the study."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mipoison.storage.files import Storage
from study import pareto
from study.records.store import Records
from study.search.sampler import DIRECTIONS
from study.tracking import Trackers
from study.trial.spec import FinishedTrial

TINY = [
    "--executor",
    "local",
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
    assert pareto.main([*TINY, "--storage", str(root), "--name", "s", *more]) == 0


def journal(root: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(root / "s" / "optuna.log")))
    return optuna.load_study(study_name="s", storage=storage)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trials, the third in a resumed run, with all trackers that need no further package."""
    root = tmp_path_factory.mktemp("tracked")
    run(root, "--trials", "2", "--tensorboard")
    run(root, "--trials", "3", "--tensorboard", "--resume")
    return root


def test_the_journal_holds_every_trial_once_with_the_records_objectives(studied: Path) -> None:
    study, records = journal(studied), Records(Storage(studied), "s")
    assert {d.name.lower() for d in study.directions} == set(DIRECTIONS.values())
    assert study.metric_names == list(DIRECTIONS)
    started = records.started()
    trials = {t.user_attrs["trial"]: t for t in study.trials}
    assert sorted(trials) == sorted(n for n in started if n.startswith("t"))
    assert len(study.trials) == 3
    for name, trial in trials.items():
        assert trial.state is TrialState.COMPLETE
        rows = pd.DataFrame(records.read_trial(name))
        worst = rows.groupby("attack")["reconstruction_error"].mean().min()
        i = next(i for i, column in enumerate(DIRECTIONS) if "reconstruction_error" in column)
        assert trial.values[i] == pytest.approx(worst)
        assert trial.params["defense"] == started[name]["defense"]


def test_optuna_dashboard_opens_the_journal(studied: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    storage = JournalStorage(JournalFileBackend(str(studied / "s" / "optuna.log")))
    app = dashboard.wsgi(storage)
    answers: list[str] = []

    def get(path: str) -> bytes:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
            "wsgi.input": None,
        }
        return b"".join(app(environ, lambda status, headers, exc_info=None: answers.append(status)))

    assert b'"s"' in get("/api/studies")
    assert answers == ["200 OK"]


def test_tensorboard_has_a_run_a_trial_with_the_records_values(studied: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    records = Records(Storage(studied), "s")
    folders = sorted((studied / "s" / "tensorboard").iterdir())
    assert [f.name for f in folders] == sorted(n for n in records.started() if n.startswith("t"))
    for folder in folders:
        log = reader.EventAccumulator(str(folder))
        log.Reload()
        for row in records.read_trial(folder.name):
            events = {e.step: e.value for e in log.Scalars(f"reconstruction_error/{row['attack']}")}
            assert math.isclose(events[row["seed"]], row["reconstruction_error"], rel_tol=1e-6)


def test_mlflow_has_a_run_a_trial(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    from mlflow.tracking import MlflowClient

    from study.tracking.mlflow import MLflow

    address = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = MLflow(address, "s")
    rows = [{"status": "ok", "attack": "passive", "seed": 1, "reconstruction_error": 0.25}]
    outcome = {"worst_reconstruction_error": 0.25, "confidence_distortion": None, "failed": 0.0}
    tracker.finished(FinishedTrial("t0001-noise", "noise", {"budget": 0.5}, rows, outcome))
    tracker.finished(FinishedTrial("t0000-noise", "noise", {"budget": 0.1}, rows, outcome, before=True))
    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params == {"defense": "noise", "budget": "0.5"}
    assert found.data.metrics["worst_reconstruction_error"] == 0.25
    assert "confidence_distortion" not in found.data.metrics
    assert found.info.status == "FINISHED"


def test_a_password_in_mlflows_address_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = pareto.main([*TINY, "--storage", str(tmp_path), "--mlflow", "http://me:hunter2@127.0.0.1:5000"])
    error = capsys.readouterr().err
    assert code == 2
    assert "MLFLOW_TRACKING_PASSWORD" in error
    assert "hunter2" not in error
    assert not list(tmp_path.iterdir())


class Broken:
    told = 0

    def finished(self, done: FinishedTrial) -> None:
        self.told += 1
        raise OSError("no space left")

    def close(self) -> None:
        raise AssertionError("dropped trackers are not called again")


def test_a_tracker_that_fails_is_dropped_with_a_warning() -> None:
    broken, said = Broken(), list[str]()
    trackers = Trackers({"the copy": broken}, said.append)
    done = FinishedTrial("t0001-noise", "noise", {}, [], {})
    trackers.finished(done)
    trackers.finished(done)
    trackers.close()
    assert broken.told == 1
    assert said == ["the copy is no longer updated (OSError: no space left); the records are not affected"]
