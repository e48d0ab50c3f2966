"""Records of a made-up study."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from study.analysis.frontier import LABEL_ONLY
from tests.study.analysis.helpers import failed, make_episodes


@pytest.fixture(scope="module")
def episodes():
    rows = make_episodes(seeds=4).to_dict("records")
    lpa = [i for i, r in enumerate(rows) if r["trial"] == "t003-lpa"]
    rows[lpa[0]] = failed(rows[lpa[0]], "RuntimeError: [/bold] CUDA out of memory")
    rows[lpa[1]]["check.no_better_than_mean_image"] = True
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    """Two pools, with certificates for some settings and an estimated limit for all."""
    frame = make_episodes(n_lpa=2, seeds=3)
    rng = np.random.default_rng(0)
    frame["reconstruction_error_test"] = frame["reconstruction_error"] * rng.uniform(0.8, 1.2, len(frame))
    by_seed = frame.groupby(["trial", "seed"])["reconstruction_error"].transform("min")
    frame["estimated_limit"], frame["estimated_limit_test"] = by_seed * 0.9, by_seed * 0.8
    some = frame["defense"].isin(["rounding", LABEL_ONLY])
    for name in ("certified_excess", "certified_excess_test"):
        values = frame.groupby(["trial", "seed"])["seed"].transform(lambda s: rng.uniform(0.3, 0.6))
        frame[name] = values.where(some)
    for name in ("smallest_cell", "smallest_cell_test"):  # exact certificates
        frame[name] = np.where(some, 7.0, np.nan)
    return frame
