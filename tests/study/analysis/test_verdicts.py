"""Verdicts from records: each number against the library's on arrays that a slow loop fills."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mipoison.metrics.excess import excess_interval, seeds_needed
from study.analysis.verdicts import DOUBTS, EXACT, POOLS, verdict_table

ATTACKERS, SEEDS = ("class-mean", "passive", "ridge"), (3, 4, 5, 6)


def rows(
    trial: str, defense: str, gain: float, *, seed: int, test_gain: float | None = None, **more: Any
) -> Any:
    rng = np.random.default_rng(seed)
    out = []
    for s in SEEDS:
        for attack in ATTACKERS:
            row: dict[str, Any] = {
                "trial": trial, "defense": defense, "attack": attack, "seed": s, "status": "ok", **more
            }  # fmt: skip
            for pool, columns in POOLS.items():
                share = gain if pool == "" or test_gain is None else test_gain
                level = 0.05 * (1 - share * (attack == "ridge")) * (1 + 0.001 * rng.standard_normal())
                row |= {
                    c: level * (1 + 0.01 * (i > 0) * rng.standard_normal()) for i, c in enumerate(columns)
                }
            out.append(row)
    return out


def frame(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    together = pd.DataFrame([row for part in parts for row in part])
    return together.sample(frac=1, random_state=0).reset_index(drop=True)  # neither order nor place counts


def test_every_number_is_the_librarys() -> None:
    episodes = frame(rows("label-only", "label-only", 0.0, seed=1), rows("t1", "noise", 0.1, seed=2))
    table = verdict_table(episodes).set_index("trial")

    found = {(r["trial"], r["seed"], r["attack"]): r for _, r in episodes.iterrows()}

    def errors(trial: str, columns: tuple[str, ...]) -> Any:
        return np.array([[[found[trial, s, a][c] for c in columns] for a in ATTACKERS] for s in SEEDS])

    for pool, columns in POOLS.items():
        expected = excess_interval(
            errors("t1", columns), errors("label-only", columns), rng=np.random.default_rng(0)
        )
        row = table.loc["t1"]
        assert row[f"suite_excess{pool}"] == pytest.approx(expected.mean)
        assert row[f"suite_excess{pool}_low"] == pytest.approx(expected.low)
        assert row[f"suite_excess{pool}_high"] == pytest.approx(expected.high)
    assert table.loc["t1", "verdict"] == "leaks"
    assert table.loc["label-only", "verdict"] == "certified"


def test_a_claim_has_to_hold_on_train_and_on_test_images() -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    table = verdict_table(frame(anchor, rows("t1", "noise", 0.0, seed=2, test_gain=0.1))).set_index("trial")
    assert table.loc["t1", "verdict"] == "leaks"
    assert table.loc["t1", "suite_excess"] < 0.01
    assert table.loc["t1", "suite_excess_worst"] == table.loc["t1", "suite_excess_test"] > 0.09
    without = frame(anchor, rows("t1", "noise", 0.0, seed=2)).drop(columns=list(POOLS["_test"]))
    assert verdict_table(without).set_index("trial").loc["t1", "verdict"] == "undecided"


def test_certificates_count_only_if_every_seed_and_pool_has_one() -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    bound = {"certified_excess": 0.004, "certified_excess_test": 0.015} | dict.fromkeys(EXACT, 7)
    whole, half, loose = (
        rows("whole", "rounding", 0.0, seed=2, **bound),
        rows("half", "rounding", 0.1, seed=3, **bound),
        rows("loose", "rounding", 0.1, seed=4, **(bound | {"certified_excess_test": 0.03})),
    )
    for row in half:
        if row["seed"] == SEEDS[0]:
            row["certified_excess_test"] = None
    table = verdict_table(frame(anchor, whole, half, loose)).set_index("trial")
    assert list(table.loc[["half", "loose", "whole"], "verdict"]) == ["leaks", "leaks", "certified"]
    assert table.loc["whole", "certified_excess_worst"] == 0.015
    assert pd.isna(table.loc["half", "certified_excess_worst"])
    strict = verdict_table(frame(anchor, whole), margin=0.01).set_index("trial")
    assert strict.loc["whole", "verdict"] != "certified"


def test_a_setting_cut_short_is_never_safe_and_failures_take_their_seed() -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    cut, failed = rows("cut", "noise", 0.0, seed=2), rows("failed", "noise", 0.0, seed=3)
    for row in cut:
        if row["attack"] == "passive":
            row["status"] = "cut"
    failed[0]["status"] = "failed"
    table = verdict_table(frame(anchor, cut, failed)).set_index("trial")
    assert table.loc["cut", "verdict"] == "undecided"
    assert pd.isna(table.loc["cut", "suite_excess_high"])
    three = verdict_table(frame([r for r in anchor if r["seed"] != 3], [r for r in failed if r["seed"] != 3]))
    assert table.loc["failed", "suite_excess"] == three.set_index("trial").loc["failed", "suite_excess"]


@pytest.mark.parametrize("missing", ["an attacker", "a seed", "half of the seeds of one attacker"])
def test_what_did_not_face_the_whole_suite_is_never_safe(missing: str) -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    leaking = rows("t1", "noise", 0.1, seed=2)
    gone = {
        "an attacker": [r for r in leaking if r["attack"] != "ridge"],
        "a seed": [r | {"seed": 99} if r["seed"] == 3 else r for r in rows("t1", "noise", 0.0, seed=2)],
        "half of the seeds of one attacker": [
            r | ({"status": "failed"} if r["attack"] == "ridge" and r["seed"] < 5 else {}) for r in leaking
        ],
    }[missing]
    assert verdict_table(frame(anchor, leaking)).set_index("trial").loc["t1", "verdict"] == "leaks"
    assert verdict_table(frame(anchor, gone)).set_index("trial").loc["t1", "verdict"] in (
        "undecided",
        "leaks",
    )


def test_attackers_that_fail_and_flipped_labels_make_nothing_safe() -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    worse = rows("t1", "noise", 0.0, seed=2)
    for row in worse:
        for name in (c for pool in POOLS.values() for c in pool):
            row[name] *= 1.3
    assert verdict_table(frame(anchor, worse)).set_index("trial").loc["t1", "verdict"] == "undecided"
    flipped = rows("t1", "lfp", 0.0, seed=2, label_agreement=1.0, attack_set_label_agreement=0.95)
    assert verdict_table(frame(anchor, flipped)).set_index("trial").loc["t1", "verdict"] == "undecided"


@pytest.mark.parametrize("fault", ["a seed failed", "beaten", "rows disagree", "noise"])
def test_what_is_certified_has_an_exact_certificate_on_every_seed_that_nobody_beat(fault: str) -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    bound = {"certified_excess": 0.01, "certified_excess_test": 0.01} | dict.fromkeys(EXACT, 7)
    setting = rows("t1", "rounding", 0.0, seed=2, **bound)
    assert verdict_table(frame(anchor, setting)).set_index("trial").loc["t1", "verdict"] == "certified"
    for row in setting:
        if fault == "a seed failed" and row["seed"] == 3:
            row["status"] = "failed"
        if fault == "beaten" and (row["seed"], row["attack"]) == (3, "ridge"):
            row["check.beats_certificate"] = True
        if fault == "rows disagree" and (row["seed"], row["attack"]) == (3, "ridge"):
            row["certified_excess"] = 0.5
        if fault == "noise":
            row["smallest_cell"] = None
    assert verdict_table(frame(anchor, setting)).set_index("trial").loc["t1", "verdict"] != "certified"


def test_a_certificate_does_not_outweigh_a_measured_gain_over_the_margin() -> None:
    """The certificate is over the best use of a label, which these attackers may not make of it."""
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    bound = {"certified_excess": 0.01, "certified_excess_test": 0.01} | dict.fromkeys(EXACT, 7)
    table = verdict_table(frame(anchor, rows("t1", "rounding", 0.1, seed=2, **bound))).set_index("trial")
    assert table.loc["t1", "verdict"] == "leaks"
    assert table.loc["t1", "certified_excess_worst"] == 0.01


def test_an_exact_certificate_needs_one_answer_to_a_query() -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    bound = {"certified_excess": 0.01, "certified_excess_test": 0.01} | dict.fromkeys(EXACT, 7)
    setting = rows("t1", "rounding", 0.0, seed=2, **bound, **{"check.repeated_queries_differ": False})
    assert verdict_table(frame(anchor, setting)).set_index("trial").loc["t1", "verdict"] == "certified"
    setting[3]["check.repeated_queries_differ"] = True
    table = verdict_table(frame(anchor, setting)).set_index("trial")
    assert table.loc["t1", "verdict"] == "undecided"
    assert pd.isna(table.loc["t1", "certified_excess_worst"])


def test_label_only_is_certified_in_records_without_certificates_unless_it_was_beaten() -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    assert verdict_table(frame(anchor)).set_index("trial").loc["label-only", "certified_excess_worst"] == 0
    anchor[0]["check.beats_certificate"] = True
    table = verdict_table(frame(anchor)).set_index("trial")
    assert pd.isna(table.loc["label-only", "certified_excess_worst"])
    assert table.loc["label-only", "verdict"] != "safe"


@pytest.mark.parametrize("where", ["everywhere", "one half-sample"])
def test_an_attacker_that_reads_images_exactly_is_the_worst_case_and_no_error(where: str) -> None:
    """An error of 0, as of an attacker that names the image and owns it: it says that the setting leaks, and
    hides the verdict on no other."""
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    read, other = rows("t1", "none", 0.9, seed=2), rows("t2", "noise", 0.0, seed=3)
    for row in read:
        if row["attack"] == "ridge":
            names = (
                [c for pool in POOLS.values() for c in pool] if where == "everywhere" else ["error_half.00"]
            )
            row |= dict.fromkeys(names, 0.0)
    table = verdict_table(frame(anchor, read, other)).set_index("trial")
    assert table.loc["t1", "verdict"] == "leaks"
    assert table.loc["t1", "suite_excess"] == pytest.approx(1.0 if where == "everywhere" else 0.9, abs=0.01)
    assert table.loc["t2", "verdict"] == "safe"


@pytest.mark.parametrize("check", DOUBTS)
def test_a_raised_check_makes_a_setting_unsafe(check: str) -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    setting = rows("t1", "lpa", 0.0, seed=2, **dict.fromkeys(DOUBTS, False))
    assert verdict_table(frame(anchor, setting)).set_index("trial").loc["t1", "verdict"] == "safe"
    setting[3][check] = True
    table = verdict_table(frame(anchor, setting)).set_index("trial")
    assert table.loc["t1", "verdict"] == "undecided"
    assert pd.isna(table.loc["t1", "seeds_to_decide"])  # no seeds would help


def test_the_undecided_are_told_how_many_seeds_would_decide() -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    wild = rows("t1", "noise", 0.0, seed=2)
    for row in wild:
        for column in (c for pool in POOLS.values() for c in pool):
            row[column] *= 1 + 0.03 * np.sin(row["seed"])  # seeds differ by far more than the margin
    row = verdict_table(frame(anchor, wild)).set_index("trial").loc["t1"]
    assert row["verdict"] == "undecided"
    assert 1 <= row["seeds_to_decide"] < 200
    assert seeds_needed(0.02, 0.02, pilot=4) > 4
    one = frame([r for r in anchor + wild if r["seed"] == 3])
    alone = verdict_table(one).set_index("trial").loc["t1"]
    assert alone["verdict"] == "undecided"
    assert pd.isna(alone["seeds_to_decide"])


def test_records_without_label_only_or_half_samples() -> None:
    setting = rows("t1", "noise", 0.1, seed=2)
    assert verdict_table(frame(setting))["verdict"].isna().all()
    old = frame(rows("label-only", "label-only", 0.0, seed=1), setting)
    old = old.drop(columns=[c for pool in POOLS.values() for c in pool[1:]])
    assert verdict_table(old).set_index("trial").loc["t1", "verdict"] == "leaks"
    assert len(verdict_table(old.iloc[:0])) == 0


def test_what_is_doubted_may_leak_on_test_images_alone() -> None:
    anchor = rows("label-only", "label-only", 0.0, seed=1)
    setting = rows("t1", "lpa", 0.0, seed=2, **dict.fromkeys(DOUBTS, False) | {DOUBTS[1]: True})
    assert verdict_table(frame(anchor, setting)).set_index("trial").loc["t1", "verdict"] == "undecided"
    for row in setting:
        row |= {column: 0.8 * row[column] for column in POOLS["_test"]}
    assert verdict_table(frame(anchor, setting)).set_index("trial").loc["t1", "verdict"] == "leaks"
