"""The tables fit a terminal of 100 columns, and the figures have content."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from rich.console import Console

from mipoison.metrics.checks import checks_table
from study.analysis.frontier import defense_table, pareto_front
from study.records.constraints import Constraints
from study.reports.findings import Findings
from study.reports.tables import print_report
from tests.study.analysis.helpers import failed, make_episodes, record

WIDTH = 100


def printed(episodes, **title_info):
    found = Findings(episodes=episodes, about=title_info, constraints=Constraints())
    console = Console(record=True, width=WIDTH, file=open("/dev/null", "w"))  # noqa: SIM115
    print_report(found, console=console)
    return console.export_text(), found.configurations


@pytest.fixture(scope="module")
def report(episodes):
    return printed(episodes, study="test-study", scale="tiny")


def test_report_fits_and_truncates_nothing(report):
    text, settings = report
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    for _, s in pareto_front(settings).iterrows():
        assert f"{s['confidence_distortion']:.3g}" in text
        assert f"{s['worst_attack_accuracy']:.3f}" in text
        assert f"{s['worst_reconstruction_error']:.4f}" in text
        assert f"[{s['excess_leakage_low']:+.3f}, {s['excess_leakage_high']:+.3f}]" in text
    for defense in defense_table(settings)["defense"]:
        assert re.search(rf"^ +{defense} ", text, flags=re.MULTILINE)
    assert "<NA>" not in text
    assert "nan" not in text
    assert "sub_features=log" in text


def test_every_caption_says_where_the_numbers_come_from(report):
    flat = " ".join(report[0].split())
    source = "study test-study; scale tiny; data digits; auxiliary same; all training images; 4 seeds"
    assert flat.count(source + " (0, 1, 2, 3)") == 8
    assert flat.count("device cpu") == 8


def test_failures_and_raised_checks_are_counted(report, episodes):
    text, _ = report
    assert f"Failures: 1 of {len(episodes)} episodes" in text
    assert "[/bold] CUDA out of memory" in " ".join(text.split())  # not parsed as markup
    assert f"1/{len(episodes) - 1}" in text
    for column, _, _ in checks_table():
        assert column.removeprefix("check.") in text


def test_report_of_little_or_nothing():
    one_seed, settings = printed(make_episodes(n_lpa=2, seeds=1))
    assert "1 seed (0)" in one_seed
    assert settings["excess_leakage_low"].isna().all()
    frame = make_episodes(n_lpa=2, seeds=2)
    without, _ = printed(frame[frame["defense"] != "label-only"])
    assert "none shown" in without
    for text in (one_seed, without, printed(pd.DataFrame([failed(record("a", "lpa", "raw", 0))]))[0]):
        assert "<NA>" not in text
        assert "nan" not in text


def test_newer_records_show_the_larger_of_train_and_test(episodes):
    """With identification, the tables of frontier and defenses say what holds on both kinds of images."""
    ok = episodes["status"] == "ok"
    auc = (0.6 + 0.1 * (episodes["attack"] == "raw")).where(ok)
    frame = episodes.assign(identification_auc=auc, identification_auc_test=auc - 0.05)
    frame["reconstruction_error_test"] = frame["reconstruction_error"] * (
        1 + 0.1 * (frame["defense"] == "noise")
    )
    text, settings = printed(frame, study="test-study", scale="tiny")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    leakage = Findings(episodes=frame, about={}, constraints=Constraints()).leakage.set_index("trial")
    for trial in pareto_front(settings)["trial"]:
        assert f"{leakage.loc[trial, 'excess']:.3f}" in text
    assert "0.700" in text
    assert "identi-" in text
    best = defense_table(settings).dropna(subset=["trial"])
    assert len(best)
    for trial in best["trial"]:
        assert f"{leakage.loc[trial, 'excess_high']:.3f}" in text
    flat = " ".join(text.split())
    assert "Train and test at most" in flat
    older = " ".join(printed(episodes)[0].split())
    assert "Train and test at most" not in older
    assert "identi-" not in older
