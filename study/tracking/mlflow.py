"""Logs each trial as an MLflow run, in an experiment with the study's name (extra ``mlflow``)."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mipoison.config import ConfigError
from mipoison.storage.s3 import holds_credentials

if TYPE_CHECKING:
    from study.trial.spec import FinishedTrial


def check_address(address: str) -> None:
    """Raise ConfigError if MLflow is missing, or if the address has a password that logs would show."""
    if holds_credentials(address):
        raise ConfigError(
            "--mlflow: leave user and password out of the address; MLflow reads them from "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if find_spec("mlflow") is None:
        raise ConfigError('--mlflow needs MLflow: pip install "mipoison[mlflow]"')


class MLflow:
    """Logs the trials that finish in this run.

    Args:
        address: the tracking store: a server, ``sqlite:///file`` or a folder.
        experiment: the name of the experiment there.
    """

    def __init__(self, address: str, experiment: str) -> None:
        check_address(address)
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=address)
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)

    def finished(self, done: FinishedTrial) -> None:
        if done.before:
            return
        run = self._client.create_run(
            self._experiment, run_name=done.trial, tags={"defense": done.defense, "trial": done.trial}
        )
        for name, value in {"defense": done.defense, **done.knobs}.items():
            self._client.log_param(run.info.run_id, name, value)
        for name, number in done.outcome.items():
            if number is not None and math.isfinite(number):
                self._client.log_metric(run.info.run_id, name, number)
        for row in done.rows:
            if row["status"] == "ok":
                name = f"{row['attack']}.reconstruction_error"
                self._client.log_metric(
                    run.info.run_id, name, row["reconstruction_error"], step=int(row["seed"])
                )
        failed = int(done.outcome.get("failed") or 0)
        self._client.set_terminated(run.info.run_id, "FAILED" if failed else "FINISHED")

    def close(self) -> None:
        """Nothing is open between trials."""
