"""Who attacked a setting, and on which seeds all succeeded: as a data frame cut up by setting says."""

from __future__ import annotations

import pandas as pd
import pytest

from study.analysis.attacked import Attacks
from study.records.status import PRUNED
from tests.study.analysis.test_scale import small_study


def test_attackers_that_were_pruned_or_failed_everywhere_are_told_apart() -> None:
    rows = pd.DataFrame(
        [{"attack": a, "seed": s, "status": "ok", "trial": "t"} for a in ("knn", "ridge") for s in (0, 1, 2)]
        + [{"attack": "mlp", "seed": s, "status": PRUNED, "trial": "t"} for s in (0, 1, 2)]
    )
    found = Attacks(rows).by_trial()["t"]
    assert (found.attackers, found.succeeded, found.seeds) == (("knn", "ridge"), ("knn", "ridge"), (0, 1, 2))
    rows.loc[4, "status"] = "failed"
    assert Attacks(rows).by_trial()["t"].seeds == (0, 2)
    rows.loc[rows["attack"] == "ridge", "status"] = "failed"
    found = Attacks(rows).by_trial()["t"]
    assert (found.attackers, found.succeeded, found.seeds) == (("knn", "ridge"), ("knn",), ())


def test_records_without_a_trial_or_seed_belong_to_none() -> None:
    rows = pd.DataFrame(
        {"trial": ["t", None, "t"], "attack": "knn", "seed": [0, 1, None], "status": "ok"}
    ).convert_dtypes()
    found = Attacks(rows).by_trial()
    assert list(found) == ["t"]
    assert (list(found["t"].rows), list(found["t"].ok), found["t"].seeds) == ([0, 2], [0, 2], (0,))


@pytest.mark.parametrize("seed", range(6))
def test_it_agrees_with_a_data_frame_cut_up_by_setting(seed: int) -> None:
    rows = small_study(seed).reset_index(drop=True)
    found = Attacks(rows).by_trial()
    assert list(found) == sorted(set(rows["trial"]))
    for trial, part in rows.groupby("trial"):
        rest = part[~part["attack"].isin(part.loc[part["status"] == PRUNED, "attack"])]
        ok = rest[rest["status"] == "ok"]
        whole = ok.groupby("seed")["attack"].nunique() == rest["attack"].nunique()
        one = found[str(trial)]
        assert one.statuses == set(part["status"])
        assert list(one.rows) == part.index.tolist()
        assert list(one.ok) == part.index[part["status"] == "ok"].tolist()
        assert one.attackers == tuple(sorted(set(rest["attack"])))
        assert one.succeeded == tuple(sorted(set(ok["attack"])))
        assert one.seeds == tuple(sorted(whole.index[whole]))
