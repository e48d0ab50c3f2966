"""The answer of a study: what it recommends, and that it fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from study.analysis.verdicts import POOLS, verdict_table
from study.records.constraints import Constraints
from study.reports import findings as findings_module
from study.reports.findings import Findings
from study.reports.markdown import markdown
from study.reports.summary import (
    BY_CONSTRUCTION,
    NOT_EVEN_UNDEFENDED,
    above_zero,
    choose,
    shown_to_leak,
    summary,
)
from study.reports.summary import answer as answer_parts

ATTACKERS, SEEDS = ("class-mean", "ridge"), (0, 1, 2, 3, 4)


def rows(trial: str, defense: str, *, distortion: float, gain: float, seed: int, **more: Any) -> list[Any]:
    rng, out = np.random.default_rng(seed), []
    for s in SEEDS:
        for attack in ATTACKERS:
            row = {
                "trial": trial, "defense": defense, "attack": attack, "seed": s, "status": "ok", "attempt": 0,
                "episode_id": f"{trial}/{attack}/{s}", "dataset": "digits", "auxiliary": "same",
                "device": "cpu",
                "confidence_distortion": distortion, "model_accuracy": 0.9, "protected_accuracy": 0.9,
                "attack_accuracy": 1.0, "mean_image_error": 0.07, "log_loss": 0.2, "clean_log_loss": 0.1,
                "identification_auc": 0.5 + gain * (attack == "ridge"), "identification_auc_test": 0.5,
                "identification_rate": 0.014, "identification_chance": 0.014,
                "estimated_limit": 0.04, "estimated_limit_low": 0.039, "estimated_limit_high": 0.041, **more,
            }  # fmt: skip
            for columns in POOLS.values():
                level = 0.05 * (1 - gain * (attack == "ridge")) * (1 + 0.002 * rng.standard_normal())
                row |= {name: level * (1 + 0.005 * rng.standard_normal()) for name in columns}
            out.append(row)
    return out


CERTIFIED = {
    "smallest_cell": 7,
    "smallest_cell_test": 5,
    "certified_excess": 0.01,
    "certified_excess_test": 0.015,
    "certified_identification": 0.02,
}
ANCHORS = [
    *rows("none", "none", distortion=0.0, gain=0.3, seed=1),
    *rows("label-only", "label-only", distortion=0.5, gain=0.0, seed=2, **dict.fromkeys(CERTIFIED, 0.0)),
]


def answer(*parts: Any, margin: float = 0.02, **bounds: float) -> tuple[Any, list[str]]:
    episodes = pd.DataFrame([row for part in (ANCHORS, *parts) for row in part])
    found = Findings(
        episodes=episodes, about={"study": "s"}, constraints=Constraints(**bounds), margin=margin
    )
    return choose(found.judged), summary(found)


@pytest.mark.parametrize(
    ("distortion", "said"),
    [
        (0.2, None),
        (0.449, None),
        (0.48, "has 4% more distortion"),
        (0.4999, "has hardly more distortion"),
        (0.6, None),
    ],
)
def test_a_setting_that_saves_next_to_nothing_is_held_against_label_only(
    distortion: float, said: str | None
) -> None:
    _, lines = answer(rows("t1", "codebook", distortion=distortion, gain=0.0, seed=3, **CERTIFIED))
    line = [line for line in lines if line.startswith("label-only ")]
    assert bool(line) == (said is not None)
    assert said is None or said in line[0]


def lost(trial: str) -> list[Any]:
    """An anchor of which nothing was measured."""
    gone = ["confidence_distortion", "protected_accuracy", *(c for pool in POOLS.values() for c in pool)]
    gone += [c for c in ANCHORS[0] if c.startswith(("identification", "estimated", "attack_", "log_"))]
    rows = [row for row in ANCHORS if row["trial"] == trial]
    return [row | dict.fromkeys(gone) | {"status": "failed"} for row in rows]


def test_an_anchor_that_failed_is_not_compared_with() -> None:
    sure = rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED)
    for gone in ("none", "label-only"):
        episodes = pd.DataFrame([*(r for r in ANCHORS if r["trial"] != gone), *lost(gone), *sure])
        found = Findings(episodes=episodes, about={}, constraints=Constraints())
        text = " ".join(" ".join(summary(found)).split())
        assert text.startswith("DEPLOY rounding (t1): certified")
        assert "nan" not in text
        assert ("of label-only's)" in text) == (gone == "none")
        assert ("(undefended" in text) is False
        assert ("; undefended AUC" in text) == (gone == "label-only")


def test_nothing_is_denied_of_settings_that_not_all_attackers_attacked() -> None:
    def said(gain: float) -> str:
        part = rows("t1", "noise", distortion=0.2, gain=gain, seed=5)
        gone = {"status": "cut", **dict.fromkeys(c for pool in POOLS.values() for c in pool)}
        more = [row | {"screened": True} for row in part]
        more += [row | gone | {"attack": "passive", "screened": True} for row in part[::2]]
        found, lines = answer(more, max_confidence_distortion=0.3)
        assert found.deploy is None
        return " ".join(" ".join(lines).split())

    assert "distortion at most 0.3 that all attackers attacked is certified or safe" in said(0.0)
    assert "distortion at most 0.3 is certified or safe" in said(0.2)  # more attackers would not mend that


def test_the_certified_setting_of_least_distortion_is_deployed() -> None:
    found, lines = answer(
        rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED),
        rows("t2", "rounding", distortion=0.3, gain=0.0, seed=4, **CERTIFIED),
        rows("t3", "noise", distortion=0.1, gain=0.0, seed=5),
        rows("t4", "lpa", distortion=0.05, gain=0.2, seed=6),
    )
    assert found.deploy is not None
    assert found.deploy["trial"] == "t1"
    assert found.runner_up is not None
    assert found.runner_up["trial"] == "t3"
    text = "\n".join(lines)
    assert text.startswith("DEPLOY           rounding (t1): certified\n")
    assert "no attacker gains more than 0.015 over the best use of the label alone" in text
    assert "40% of label-only's" in text
    assert "log loss 0.2 (clean 0.1)" in text
    assert "2 of 6 settings are shown to leak" in text


def test_the_runner_up_s_limit_is_rounded_up() -> None:
    safe = rows("t3", "noise", distortion=0.1, gain=0.0, seed=5)
    found, lines = answer(rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED), safe)
    r = found.runner_up
    assert r is not None
    high = max(r["suite_excess_high"], r["suite_excess_test_high"])
    assert round(high, 3) < high  # the usual rounding would go below it
    said = " ".join(" ".join(lines).split()).partition("runner-up")[2].partition("at most ")[2].split()[0]
    assert high <= float(said) < high + 0.001


def test_where_not_even_undefended_is_shown_to_leak_nothing_is_called_safe_lightly() -> None:
    """Few seeds, and an undefended anchor whose interval holds zero."""
    weak = rows("none", "none", distortion=0.0, gain=0.0, seed=1)
    label_only = [r for r in ANCHORS if r["trial"] == "label-only"]
    safe = rows("t3", "noise", distortion=0.1, gain=0.0, seed=5)

    def said(*parts: Any) -> str:
        found = Findings(
            episodes=pd.DataFrame([r for p in parts for r in p]), about={}, constraints=Constraints()
        )
        return " ".join(" ".join(summary(found)).split())

    text = said(weak, label_only, safe)
    assert f"leaks 0 of 3 settings are shown to leak; {NOT_EVEN_UNDEFENDED}" in text
    assert NOT_EVEN_UNDEFENDED not in said(ANCHORS, safe)  # undefended leaks
    assert NOT_EVEN_UNDEFENDED not in said(label_only, safe)  # it was not measured
    lows = {"verdict": "undecided", "suite_excess_low": -0.2, "suite_excess_test_low": 0.3}
    assert shown_to_leak(lows) is True  # of a setting that attackers read on test images alone
    assert shown_to_leak(lows | {"suite_excess_test_low": -0.1}) is False
    assert shown_to_leak(lows | {"verdict": None}) is None


def test_a_certified_runner_up_shows_its_certificate_and_label_only_says_why_it_is_measured_above() -> None:
    found, lines = answer(rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED))
    assert found.runner_up is not None
    assert found.runner_up["trial"] == "label-only"
    text = " ".join(" ".join(lines).split())
    assert (
        "label-only (label-only): certified, distortion 0.5, no attacker gains more than 0.000 (measured: at"
        in text
    )
    assert BY_CONSTRUCTION not in text
    assert BY_CONSTRUCTION in " ".join(" ".join(answer()[1]).split())  # label-only is deployed
    assert above_zero(None) == above_zero(0.0) == above_zero(1e-12) == ""


def test_worst_attackers_are_named_by_pool_where_they_differ() -> None:
    part = rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED)
    for row in part:
        for pool, columns in POOLS.items():
            level = 0.0501 if (row["attack"] == "ridge") == (pool == "_test") else 0.0505
            row |= dict.fromkeys(columns, level)
    text = " ".join(" ".join(answer(part)[1]).split())
    assert "worst attacker class-mean on train, ridge on test" in text


def test_a_narrower_margin_leaves_label_only() -> None:
    found, lines = answer(rows("t1", "rounding", distortion=0.2, gain=0.2, seed=3, **CERTIFIED), margin=0.001)
    assert found.deploy is not None
    assert found.deploy["trial"] == "label-only"
    assert lines[0] == "DEPLOY           label-only (label-only): certified"


def test_records_without_certificates_recommend_nothing_for_certain() -> None:
    episodes = pd.DataFrame([*ANCHORS, *rows("t3", "noise", distortion=0.1, gain=0.0, seed=5)])
    episodes = episodes.drop(columns=[*list(CERTIFIED), "identification_auc", "identification_auc_test"])
    lines = summary(Findings(episodes=episodes, about={}, constraints=Constraints()))
    assert lines[0] == "DEPLOY           label-only (label-only): certified"  # by construction
    assert any(line.startswith("runner-up") and "noise (t3): safe" in line for line in lines)
    assert not any(line.startswith("identification") for line in lines)


def test_without_a_certified_setting_within_the_constraints_a_safe_one_is_named_as_such() -> None:
    _, lines = answer(
        rows("t3", "noise", distortion=0.1, gain=0.0, seed=5, top2_agreement=0.9), min_top2_agreement=0.5
    )
    assert lines[0].startswith(
        "DEPLOY           nothing is certified; safe against these attackers alone: noise"
    )
    assert "none: no certificate exists" in lines[1]


def test_what_is_deployed_names_its_raised_checks_and_its_identification_on_the_worst_seed() -> None:
    bound = dict.fromkeys(("certified_identification", "certified_identification_test"), 0.1)
    setting = rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED | bound)
    for row in setting:
        if row["seed"] == setting[0]["seed"]:
            row["certified_identification"] = 0.3001
    setting[0]["check.hidden_channel"] = True
    text = " ".join(" ".join(answer(setting)[1]).split())
    assert "names the image more often than 0.301 (any seed" in text  # rounded up
    assert "checks raised in its records: hidden_channel;" in text


@pytest.mark.parametrize("n", [1, 12])
def test_it_fits_into_25_lines_of_100_columns(n: int) -> None:
    knobs = {"defense.budget": 0.123456, "defense.rounds": 1000, "defense.substitute_features": "log"}
    parts = [
        rows(f"t{i:04d}-lpa-ensemble-of-many", "lpa-ensemble", distortion=0.1 + i / 100, gain=0.012, seed=i)
        for i in range(n)
    ]
    parts += [rows("t9", "rounding", distortion=0.2, gain=0.0, seed=50, **CERTIFIED, **knobs)]
    _, lines = answer(*parts)
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 100


def test_only_what_keeps_within_the_constraints_is_deployed() -> None:
    parts = [
        rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED, top5_agreement=0.5),
        rows("t2", "rounding", distortion=0.3, gain=0.0, seed=4, **CERTIFIED, top5_agreement=0.95),
        rows("t3", "noise", distortion=0.1, gain=0.0, seed=5),  # not measured: does not satisfy it
    ]
    free, _ = answer(*parts)
    assert free.deploy is not None
    assert free.deploy["trial"] == "t1"
    found, lines = answer(*parts, min_top5_agreement=0.9)
    assert found.deploy is not None
    assert found.deploy["trial"] == "t2"
    assert found.runner_up is None
    text = " ".join(" ".join(lines).split())
    assert "4 are outside the constraints (accuracy drop at most 0.02, top-5 agreement at least 0.9)" in text


def test_where_label_only_breaks_a_constraint_nothing_is_recommended_in_its_place() -> None:
    found, lines = answer(
        rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED), max_confidence_distortion=0.1
    )
    assert found.deploy is None
    text = " ".join(" ".join(lines).split())
    said = "DEPLOY nothing: no setting with accuracy drop at most 0.02, distortion at most 0.1 is certified"
    assert text.startswith(said)
    assert not any(line.startswith(("guarantee", "costs")) for line in lines)


def test_anchors_are_never_undecided() -> None:
    """No more seeds are run of them for their own sake: the undefended victim is the comparison."""
    one = [r for r in (*ANCHORS, *rows("t1", "noise", distortion=0.1, gain=0.0, seed=5)) if r["seed"] == 0]
    found = Findings(episodes=pd.DataFrame(one), about={}, constraints=Constraints())
    assert set(found.verdicts.set_index("trial").loc[["none", "t1"], "verdict"]) == {"undecided"}
    assert choose(found.judged).undecided["trial"].tolist() == ["t1"]
    text = " ".join(" ".join(summary(found)).split())
    assert "undecided 1 of 1 settings besides the anchors; to be decided: noise (t1) by" in text


def test_the_verdicts_are_computed_once_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: Any, **more: Any) -> pd.DataFrame:
        calls.append(args)
        return verdict_table(*args, **more)

    monkeypatch.setattr(findings_module, "verdict_table", counted)
    found = Findings(episodes=pd.DataFrame(ANCHORS), about={"study": "s"}, constraints=Constraints())
    assert len(found.leakage) == 2
    markdown(found)
    summary(found)
    assert len(calls) == 1


def test_what_held_out_seeds_say_of_the_settings_that_are_named() -> None:
    safe = rows("t3", "noise", distortion=0.1, gain=0.0, seed=5)
    label_only = [row for row in ANCHORS if row["trial"] == "label-only"]

    def said(fresh: list[Any] | None) -> str | None:
        episodes = pd.DataFrame([*ANCHORS, *safe]).drop(columns=[*CERTIFIED])
        found = Findings(
            episodes=episodes,
            fresh=None if fresh is None else pd.DataFrame(fresh),
            about={},
            constraints=Constraints(),
        )
        return dict(answer_parts(found)).get("held-out seeds")

    assert said(None) is None
    assert said(label_only) is None  # nothing that is named was tried there
    again = said([*label_only, *rows("t3", "noise", distortion=0.1, gain=0.0, seed=7)])
    assert again is not None
    assert again.startswith("t3 safe, excess leakage at most 0.0")
    read = said([*label_only, *rows("t3", "noise", distortion=0.1, gain=0.1, seed=7)])
    assert read is not None
    assert read.startswith("t3 leaks, excess leakage at most 0.1")
