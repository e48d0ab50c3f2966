"""Vectors on the page are released again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from study.analysis.frontier import configuration_table
from study.records.constraints import Constraints
from study.records.finished import load
from study.reports.html.vectors import project, release_vectors


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
