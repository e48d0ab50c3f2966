"""Numbers of each setting's leakage, computed here slowly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from study.analysis.frontier import LABEL_ONLY
from study.analysis.verdicts import verdict_table
from study.reports.leakage import (
    ATTACKER,
    CERTIFIED,
    EXCESS,
    EXTRAPOLATED,
    POSSIBLE,
    WORST_ATTACKER,
    WORST_POOL,
    leakage_table,
)  # fmt: skip
from tests.study.records.test_curves import ROW

ERRORS = ("reconstruction_error", "reconstruction_error_test")


def test_the_numbers_are_the_larger_of_train_and_test(measured: pd.DataFrame) -> None:
    table = leakage_table(measured, verdict_table(measured)).set_index("trial")
    floor = measured[measured["defense"] == LABEL_ONLY]
    least = {name: min(one[name].mean() for _, one in floor.groupby("attack")) for name in ERRORS}
    assert len(table) == measured["trial"].nunique()
    for trial, rows in measured.groupby("trial"):
        excess = [
            1 - min(one[name].mean() for _, one in rows.groupby("attack")) / least[name] for name in ERRORS
        ]
        pool = ("train", "test").index(table[WORST_POOL][trial])
        assert table[EXCESS][trial] == pytest.approx(max(0.0, excess[pool]))
        possible = [
            1 - np.mean([one[limit].iloc[0] for _, one in rows.groupby("seed")]) / least[error]
            for limit, error in zip(("estimated_limit", "estimated_limit_test"), ERRORS, strict=True)
        ]
        assert table[POSSIBLE][trial] == pytest.approx(max(0.0, *possible))
        bounds = rows[["certified_excess", "certified_excess_test"]].to_numpy()
        if np.isnan(bounds).any():
            assert pd.isna(table[CERTIFIED][trial])
        else:
            assert table[CERTIFIED][trial] == pytest.approx(bounds.max())
    ends = verdict_table(measured).set_index("trial")
    larger = ends[["suite_excess_high", "suite_excess_test_high"]].max(axis=1)
    pd.testing.assert_series_equal(table[f"{EXCESS}_high"], larger, check_names=False)


def test_value_limits_and_pool_are_of_the_pool_with_the_larger_upper_limit() -> None:
    """The larger value may be the other pool's."""
    names = [f"suite_excess{pool}{end}" for pool in ("", "_test") for end in ("", "_low", "_high")]
    known = {
        "wide-test": [0.004, -0.001, 0.010, 0.001, -0.02, 0.030],
        "wide-train": [0.001, -0.02, 0.030, 0.004, -0.001, 0.010],
        "one-seed": [0.001, None, None, 0.004, None, None],
        "no-test": [0.004, -0.001, 0.010, None, None, None],
        "no-train": [None, None, None, 0.004, -0.001, 0.010],
        "none": [None] * 6,
    }
    verdicts = pd.DataFrame.from_dict(known, orient="index", columns=names).astype("Float64")
    verdicts = verdicts.rename_axis("trial").reset_index().assign(certified_excess_worst=pd.NA)
    row = {"defense": "noise", "attack": "knn", "seed": 0, "status": "ok"}
    table = leakage_table(pd.DataFrame([row | {"trial": t} for t in known]), verdicts).set_index("trial")
    pools = dict(zip(known, ("test", "train", "test", "train", "test", None), strict=True))
    for trial, pool in pools.items():
        part = known[trial][3:] if pool == "test" else known[trial][:3]
        shown = table.loc[trial, [EXCESS, f"{EXCESS}_low", f"{EXCESS}_high", WORST_POOL]]
        assert [None if pd.isna(v) else v for v in shown] == [*part, pool], trial


def test_the_attacker_is_that_of_the_pool_whose_excess_is_shown(measured: pd.DataFrame) -> None:
    """Against means over the records; one setting's test images are best read by another attacker."""
    frame = measured.copy()
    trial = next(t for t in sorted(set(frame["trial"])) if t not in ("none", LABEL_ONLY))
    attackers = sorted(set(frame["attack"]))
    for attack, train, test in ((attackers[0], 0.5, 0.9), (attackers[1], 0.9, 0.1)):
        mine = (frame["trial"] == trial) & (frame["attack"] == attack)
        for column in (c for c in frame.columns if c.startswith(("reconstruction_error", "error_half"))):
            share = test if "test" in column else train
            frame.loc[mine, column] = frame.loc[mine, column] * share
    verdicts = verdict_table(frame)
    table = leakage_table(frame, verdicts).set_index("trial")
    ends = verdicts.set_index("trial")
    for name in table.index[table[EXCESS].notna()]:
        pools = ends.loc[name, ["suite_excess_high", "suite_excess_test_high"]].to_numpy(dtype=float)
        assert table[WORST_POOL][name] == ("test" if pools[1] > pools[0] else "train")
        error = ERRORS[int(pools[1] > pools[0])]
        rows = frame[frame["trial"] == name]
        means = {attack: one[error].mean() for attack, one in rows.groupby("attack")}
        assert table[WORST_ATTACKER][name] == min(means, key=lambda attack: means[attack])
    assert (table[WORST_ATTACKER][trial], table[WORST_POOL][trial]) == (attackers[1], "test")
    assert table[ATTACKER[""]][trial] == attackers[0]


def test_what_is_extrapolated_is_the_larger_of_train_and_test(measured: pd.DataFrame) -> None:
    floor = measured[measured["defense"] == LABEL_ONLY]
    least = {name: min(one[name].mean() for _, one in floor.groupby("attack")) for name in ERRORS}
    faces = dict(zip(("train", "test"), ERRORS, strict=True))
    curves = [
        ROW | {"trial": trial, "face": face, "errors": [0.03, 0.029, 0.028, error], "gain": gain,
               "gain_low": gain - 0.02, "gain_high": gain + 0.3}
        for trial, face, error, gain in (
            ("none", "train", 0.02, 0.1), ("none", "test", 0.018, 0.05), (LABEL_ONLY, "train", 0.03, -0.2))
    ]  # fmt: skip
    table = leakage_table(measured, verdict_table(measured), curves).set_index("trial")
    for end, more in (("", 0.0), ("_low", -0.02), ("_high", 0.3)):
        column = table[EXTRAPOLATED + end]
        shares = [1 - c["errors"][-1] * (1 - c["gain"] - more) / least[faces[c["face"]]] for c in curves[:2]]
        assert column["none"] == pytest.approx(max(shares))
        assert column.notna().sum() == 2
    assert table[EXTRAPOLATED][LABEL_ONLY] == 0  # an error above label-only's is no gain
    rest = leakage_table(measured, verdict_table(measured)).set_index("trial")
    pd.testing.assert_frame_equal(table[rest.columns[:5]], rest[rest.columns[:5]])
