"""The copy for MLflow: a run a trial; no password in its address."""

from __future__ import annotations

from pathlib import Path

import pytest

from study import pareto
from study.trial.spec import FinishedTrial
from tests.study.tracking.helpers import TINY


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
