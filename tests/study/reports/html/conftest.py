"""Records of a made-up study, and their page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mipoison.metrics.leakage import PERCENTILE_COLUMNS
from study.reports.html import build
from tests.study.analysis.helpers import failed, make_episodes
from tests.study.reports.html.helpers import HOSTILE, finished


@pytest.fixture(scope="module")
def episodes() -> pd.DataFrame:
    """A made-up study: percentiles, one cut setting, a failed one, one seed of an attacker that failed."""
    rows = make_episodes(n_lpa=12, seeds=3).to_dict("records")
    rng = np.random.default_rng(0)
    for row in rows:
        values = np.sort(row["reconstruction_error"] * rng.uniform(0.2, 2, len(PERCENTILE_COLUMNS)))
        row |= dict(zip(PERCENTILE_COLUMNS, values.tolist(), strict=True))
        row["excess_leakage"] = 1 - row["reconstruction_error"] / 0.026
        if row["trial"] == "t200-lfp" and row["attack"] != "passive":
            row |= failed(row) | {"status": "cut", "error": "not run: label-only dominates"}
    lpa = [i for i, r in enumerate(rows) if r["trial"] == "t003-lpa"]
    rows[lpa[0]] = failed(rows[lpa[0]], HOSTILE)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def page(episodes: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(
        finished(episodes, tmp_path_factory.mktemp("page"), HOSTILE), "results/it's here", with_vectors=False
    )
