"""The journal for Optuna's tools: every trial once, with the records' objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mipoison.storage.files import Storage
from study.records.store import Records
from study.search.objectives import SHARED_CLASSES, chosen, directions

DIRECTIONS = directions(chosen(SHARED_CLASSES))


def journal(root: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(root / "s" / "optuna.log")))
    return optuna.load_study(study_name="s", storage=storage)


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
