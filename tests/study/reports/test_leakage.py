"""Numbers of each setting's leakage, computed here slowly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from study.analysis.frontier import LABEL_ONLY
from study.analysis.verdicts import verdict_table
from study.records.status import PRUNED
from study.reports.leakage import (
    ATTACKER,
    CERTIFIED,
    EXCESS,
    EXTRAPOLATED,
    POSSIBLE,
    WORST_ATTACKER,
    WORST_POOL,
    counted,
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
        assert table[EXCESS][trial] == pytest.approx(max(0.0, *excess))
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
    for end in ("_low", "_high"):
        larger = ends[[f"suite_excess{end}", f"suite_excess_test{end}"]].max(axis=1)
        pd.testing.assert_series_equal(table[EXCESS + end], larger, check_names=False)


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
        pools = ends.loc[name, ["suite_excess", "suite_excess_test"]].to_numpy(dtype=float)
        assert table[WORST_POOL][name] == ("test" if pools[1] > pools[0] else "train")
        error = ERRORS[int(pools[1] > pools[0])]
        rows = frame[frame["trial"] == name]
        means = {attack: one[error].mean() for attack, one in rows.groupby("attack")}
        assert table[WORST_ATTACKER][name] == min(means, key=lambda attack: means[attack])
    assert (table[WORST_ATTACKER][trial], table[WORST_POOL][trial]) == (attackers[1], "test")
    assert table[ATTACKER[""]][trial] == attackers[0]


def test_attackers_that_did_not_run_and_seeds_that_failed_do_not_count() -> None:
    rows = pd.DataFrame(
        [{"attack": a, "seed": s, "status": "ok"} for a in ("knn", "ridge") for s in (0, 1, 2)]
        + [{"attack": "mlp", "seed": s, "status": PRUNED} for s in (0, 1, 2)]
    )
    assert counted(rows) == (["knn", "ridge"], [0, 1, 2])
    rows.loc[4, "status"] = "failed"
    assert counted(rows) == (["knn", "ridge"], [0, 2])
    rows.loc[rows["attack"] == "ridge", "status"] = "failed"
    assert counted(rows) == (["knn"], [])


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
