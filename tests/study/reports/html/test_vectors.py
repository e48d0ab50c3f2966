"""Vectors on the page are released again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from study.analysis.frontier import configuration_table
from study.records.constraints import Constraints
from study.records.finished import load
from study.reports.html.vectors import panels, project, release_vectors
from study.trial.rerun import NO_VICTIM
from tests.study.reports.test_label import study_of
from tests.study.reports.test_summary import rows


def test_vectors_are_released_again(small_study: Path) -> None:
    study = load(small_study)
    settings = configuration_table(study.episodes, constraints=Constraints())
    told: list[str] = []
    vectors = release_vectors(
        study,
        settings,
        root=str(small_study.parent),
        data_root=None,
        progress=lambda what, done, total: told.append(f"{done}/{total}"),
    )
    assert told[0] == "0/5"
    assert told[-1] == "5/5"
    clean = vectors["clean"]
    assert np.allclose(clean.sum(1), 1, atol=1e-5)
    one_hot = np.eye(clean.shape[1])[clean.argmax(1)]
    assert np.array_equal(vectors["label-only"], one_hot)
    panels = project({"clean": clean, "hot": one_hot}, lambda *_: None)
    assert panels[0]["moved"] == pytest.approx(np.linalg.norm(one_hot - clean, axis=1).mean())
    assert [v["method"] for v in panels[0]["views"]] == ["PCA", "t-SNE"]
    assert all(len(v["released"]) == len(clean) for v in panels[0]["views"])


def test_what_is_left_out_is_one_thing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = {"scene.victim": "net:make", "scene.seed": 0}
    study = study_of(rows("t1", "noise", distortion=0.2, gain=0.0, seed=3, **own), tmp_path=tmp_path)
    settings = configuration_table(study.episodes, constraints=Constraints())
    shown, why = panels(
        study, settings, wanted=True, data_root=None, given=NO_VICTIM, progress=lambda *_: None
    )
    assert not shown
    assert "never loaded" in why
    assert "the picture of clean and released vectors is left out: these records" in caplog.text
