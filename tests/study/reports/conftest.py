"""Records of a made-up study."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.study.analysis.helpers import failed, make_episodes


@pytest.fixture(scope="module")
def episodes():
    rows = make_episodes(seeds=4).to_dict("records")
    lpa = [i for i, r in enumerate(rows) if r["trial"] == "t003-lpa"]
    rows[lpa[0]] = failed(rows[lpa[0]], "RuntimeError: [/bold] CUDA out of memory")
    rows[lpa[1]]["check.no_better_than_mean_image"] = True
    return pd.DataFrame(rows)
