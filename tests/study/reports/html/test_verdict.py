"""The verdict's words and numbers are the label's."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest

from study.records.finished import load
from study.reports.findings import Findings
from study.reports.html.verdict import costs_text, excess_text, interval_text, verdict
from study.reports.label import label
from study.reports.summary import answer
from tests.study.reports.test_label import study_of
from tests.study.reports.test_summary import CERTIFIED, rows


def test_a_certified_setting(tmp_path: Path) -> None:
    part = rows("t0001-rounding", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED)
    study = study_of(part, tmp_path=tmp_path)
    made = verdict(Findings.of(study), label(study))
    assert (made["state"], made["badge"], made["deploy"]) == ("certified", "certified", "Deploy rounding")
    numbers = {name: (value, more) for name, value, more in made["numbers"]}
    assert numbers["guarantee"][0] == "at most 0.015"
    assert "by the worst of 2 attackers" in numbers["measured"][1]
    assert "undefended 0.3" in numbers["measured"][1]
    assert numbers["costs"][0] == "distortion 0.2"
    assert numbers["costs"][1].startswith("40% of label-only's")


def test_without_a_certificate_nothing_is_guaranteed(tmp_path: Path) -> None:
    part = rows("t1", "noise", distortion=0.2, gain=0.0, seed=3)
    study = study_of(part, tmp_path=tmp_path)
    made = verdict(Findings.of(study), label(study, "t1"))
    assert made["state"] == "safe"
    assert made["numbers"][0] == ("guarantee", "none", "what follows speaks of these attackers alone")


def test_the_headline_names_raised_checks(tmp_path: Path) -> None:
    raised = {"check.hidden_channel": True, "check.asked_nothing": False}
    part = rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED, **raised)
    study = study_of(part, tmp_path=tmp_path)
    made = verdict(Findings.of(study), label(study))
    assert made["badge"] == "certified; raised in its records: hidden_channel"
    assert made["state"] == "certified"


def test_label_only_and_nothing(tmp_path: Path) -> None:
    study = study_of(rows("t1", "noise", distortion=0.2, gain=0.2, seed=3), tmp_path=tmp_path)
    found = Findings.of(study)
    assert verdict(found, label(study))["deploy"] == "Release labels only"
    assert verdict(found, None)["state"] == "none"


def test_beside_label_only_the_safe_settings_are_named(tmp_path: Path) -> None:
    study = study_of(
        rows("t1", "noise", distortion=0.2, gain=0.0, seed=3),
        rows("t2", "noise", distortion=0.3, gain=0.0, seed=4),
        rows("t3", "lpa", distortion=0.05, gain=0.2, seed=6),
        tmp_path=tmp_path,
    )
    found = Findings.of(study)
    high = found.verdicts.set_index("trial").loc["t1", ["suite_excess_high", "suite_excess_test_high"]].max()
    most = math.ceil(high * 1000) / 1000
    made = verdict(found, label(study))
    assert made["state"] == "label-only"
    assert made["means"].startswith(
        "Nothing else is certified; safe against these attackers: noise (t1, distortion 0.2, "
        f"excess at most {most:.3f}) and 1 more (margin 0.02)."
    )
    alone = study_of(rows("t3", "lpa", distortion=0.05, gain=0.2, seed=6), tmp_path=tmp_path)
    assert verdict(Findings.of(alone), label(alone))["means"].startswith("No other setting with")
    costly = rows("t4", "rounding", distortion=0.6, gain=0.0, seed=3, **CERTIFIED)
    both = study_of(costly, tmp_path=tmp_path)
    said = verdict(Findings.of(both), label(both))["means"]
    assert said.startswith("Certified too: rounding (t4, distortion 0.6, certificate 0.015)")
    assert "undefended" not in said
    shy = study_of(costly, tmp_path=tmp_path)
    rest = shy.episodes[shy.episodes["trial"] != "none"]
    weak = pd.DataFrame(rows("none", "none", distortion=0.0, gain=0.0, seed=1))
    shy = dataclasses.replace(shy, episodes=pd.concat([rest, weak], ignore_index=True))
    assert "Not even undefended is shown to leak" in verdict(Findings.of(shy), label(shy))["means"]


@pytest.mark.parametrize("name", ["digits-search", "digits-lpa-search", "mnist-suite"])
def test_no_page_denies_its_safe_settings(name: str) -> None:
    study = load(Path(__file__).parents[4] / "study" / "results" / name)
    found = Findings.of(study)
    table = found.judged
    feasible = table["feasible"].fillna(False).astype(bool)
    safe = table[feasible & (table["verdict"] == "safe")]["trial"]
    assert len(safe)
    said = [verdict(found, label(study))["means"], *(text for _, text in answer(found))]
    assert not any("is certified or safe" in text for text in said)
    assert all(any(trial in text for trial in safe) for text in (said[0], " ".join(said[1:])))


def test_texts() -> None:
    assert interval_text({"value": -1e-9, "low": None, "high": None}, ".3f") == "0.000"
    assert interval_text({"value": 0.1, "low": 0.05, "high": 0.2001}, ".2f") == "0.10 [0.05, 0.20]"
    assert excess_text({"value": 0.1, "low": 0.05, "high": 0.2001}) == "0.100 [0.050, 0.201]"
    names = ("distortion_share_of_label_only", "accuracy_drop", "rank_correlation", "top2_agreement")
    faces = dict.fromkeys((*names, "top5_agreement"))
    assert costs_text(faces) == ""
    assert costs_text(faces | {"accuracy_drop": 0.013}) == "accuracy lost 1.3 points"


@pytest.mark.parametrize("name", ["digits-search", "lfw-suite"])
def test_committed_studies_have_one(name: str) -> None:
    study = load(Path(__file__).parents[4] / "study" / "results" / name)
    made = verdict(Findings.of(study), label(study))
    assert made["deploy"]
    assert "nan" not in str(made)
