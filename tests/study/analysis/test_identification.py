"""The strongest attacker at telling images apart, against plain loops over the records."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mipoison.metrics.statistics import mean_interval
from study.analysis.identification import COLUMNS, identification_table
from tests.study.analysis.helpers import failed, make_episodes

POOLS = {"train": "identification_auc", "test": "identification_auc_test"}


@pytest.fixture
def measured() -> pd.DataFrame:
    frame = make_episodes(n_lpa=3, seeds=3)
    rng = np.random.default_rng(0)
    for name in POOLS.values():
        frame[name] = rng.uniform(0.5, 0.9, len(frame))
        frame.loc[frame["defense"] == "label-only", name] = 0.5
    return frame


def slowly(rows: pd.DataFrame, seeds: list[int]) -> tuple[float, str, str, list[float]]:
    """The largest mean with its attacker, pool and values by seed."""
    found = []
    for attack in sorted(set(rows["attack"])):
        for pool, column in sorted(POOLS.items(), reverse=True):
            own = rows[(rows["attack"] == attack) & rows["seed"].isin(seeds)].sort_values("seed")
            found.append((float(np.mean(own[column])), attack, pool, list(own[column])))
    return max(found, key=lambda f: f[0])


def test_the_largest_of_attackers_train_and_test(measured: pd.DataFrame) -> None:
    table = identification_table(measured.sample(frac=1, random_state=1)).set_index("trial")
    assert set(table.index) == set(measured["trial"])
    for trial, rows in measured.groupby("trial"):
        mean, attack, pool, values = slowly(rows, [0, 1, 2])
        row = table.loc[trial]
        assert row["identification"] == pytest.approx(mean)
        interval = mean_interval(values)
        assert interval.low is not None
        assert interval.high is not None
        assert row["identification_low"] == pytest.approx(max(0, interval.low))
        assert row["identification_high"] == pytest.approx(min(1, interval.high))
        if trial != "label-only":
            assert (row["identification_attacker"], row["identification_pool"]) == (attack, pool)
    assert table.loc["label-only", "identification"] == 0.5
    assert set(table["identification_pool"]) == {"train", "test"}


def test_only_seeds_with_the_whole_suite_and_attackers_that_were_not_cut(measured: pd.DataFrame) -> None:
    rows = measured.to_dict("records")
    gone = {"identification_auc": None, "identification_auc_test": None}
    for row in rows:
        if (row["trial"], row["attack"], row["seed"]) == ("t001-noise", "raw", 1):
            row |= failed(row) | gone
        if row["trial"] == "t002-lpa" and row["attack"] == "raw" and row["seed"] > 0:
            row |= failed(row) | gone | {"status": "cut"}
    table = identification_table(pd.DataFrame(rows)).set_index("trial")
    one = measured[measured["trial"] == "t001-noise"]
    assert table.loc["t001-noise", "identification"] == pytest.approx(slowly(one, [0, 2])[0])
    cut = measured[(measured["trial"] == "t002-lpa") & (measured["attack"] != "raw")]
    assert table.loc["t002-lpa", "identification"] == pytest.approx(slowly(cut, [0, 1, 2])[0])


def test_one_seed_has_no_interval_and_one_pool_is_enough(measured: pd.DataFrame) -> None:
    one = measured[measured["seed"] == 0].drop(columns="identification_auc_test")
    table = identification_table(one)
    assert set(table["identification_pool"]) == {"train"}
    assert table["identification"].notna().all()
    assert table[["identification_low", "identification_high"]].isna().all(axis=None)


def test_older_records_have_none(measured: pd.DataFrame) -> None:
    for frame in (
        measured.drop(columns=list(POOLS.values())),
        measured.assign(**dict.fromkeys(POOLS.values())),
    ):
        table = identification_table(frame)
        assert len(table) == 0
        assert list(table) == list(COLUMNS)
