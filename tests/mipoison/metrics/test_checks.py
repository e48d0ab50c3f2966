"""Checks are applied to records of one cell, and say nothing where a number is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mipoison.attacks import ATTACKS, PASSIVE
from mipoison.metrics import CHECKS, CheckContext, apply_checks, checks_table
from tests.mipoison.metrics.check_records import LABEL_ONLY, SUITE, UNDEFENDED, context


@pytest.mark.parametrize("status", ["failed", "timeout", "cut", None])
def test_a_failed_record_gets_none_everywhere(status):
    faulty = {**SUITE[0], "status": status, "repeat_query_distance": 1.0, "reconstruction_skill": -1.0}
    assert apply_checks(faulty, context()) == {f"check.{name}": None for name in CHECKS}


@pytest.mark.parametrize("missing", [None, math.nan, np.float32("nan")])
def test_missing_numbers_are_not_applicable(missing):
    keys = (
        "repeat_query_distance",
        "reconstruction_skill",
        "reconstruction_error",
        "label_agreement",
        "confidence_distortion",
        "queries",
        "attack_set_distortion",
        "clean_reconstruction_error",
        "evaluator_accuracy",
    )
    blank = {**SUITE[0], **dict.fromkeys(keys, missing)}
    assert set(apply_checks(blank, context()).values()) == {None}
    absent = {key: value for key, value in SUITE[0].items() if key not in keys}
    assert set(apply_checks(absent, context()).values()) == {None}


def test_without_siblings_only_the_records_own_checks_apply():
    checked = apply_checks({**SUITE[0], "confidence_distortion": 0.0}, CheckContext())
    assert [name for name, value in checked.items() if value is not None] == [
        "check.repeated_queries_differ",
        "check.no_better_than_mean_image",
        "check.asked_nothing",
        "check.label_recovered",
        "check.unfit_judge",
    ]


@pytest.mark.parametrize("value", ["0.02", True, math.inf])
def test_what_is_no_number_raises(value):
    with pytest.raises(ValueError, match="reconstruction_skill"):
        apply_checks({**SUITE[0], "reconstruction_skill": value}, context())


def test_a_record_without_status_raises():
    with pytest.raises(ValueError, match=r"no status.*attack"):
        apply_checks({"attack": "passive"}, CheckContext())


@pytest.mark.parametrize(
    ("role", "changes", "message"),
    [
        ("suite", {"seed": 1}, "suite.*seed"),
        ("suite", {"defense.budget": 0.02}, "suite.*defense"),
        ("undefended", {"split": "f2"}, "undefended.*split"),
        ("label_only", {"victim": "other"}, "label_only.*victim"),
    ],
)
def test_a_context_of_another_cell_raises(role, changes, message):
    with pytest.raises(ValueError, match=message):
        apply_checks(SUITE[0], CheckContext(**{role: ({**SUITE[1], **changes},)}))


def test_failed_siblings_need_no_split():
    failed = {**SUITE[1], "status": "failed", "split": None, "reconstruction_error": None}
    assert apply_checks(SUITE[0], context([*SUITE, failed])) == apply_checks(SUITE[0], context())


def test_the_library_calls_its_baselines_what_the_checks_do():
    assert PASSIVE == "passive"
    assert PASSIVE in ATTACKS


def test_context_is_picked_out_of_a_pile():
    strangers = [
        {**SUITE[1], "seed": 1},
        {**SUITE[1], "defense.budget": 0.02},
        {**UNDEFENDED[0], "split": "f2"},
        {**LABEL_ONLY[0], "victim.width": 64},
    ]
    # a data frame fills the settings of other defenses with NaN
    blank = [{**row, "defense.decimals": math.nan} for row in SUITE]
    pile = [*strangers, *blank, *UNDEFENDED, *LABEL_ONLY]
    found = CheckContext.of(SUITE[0], pile, undefended="none", label_only="label-only")
    assert list(found.suite) == blank
    assert list(found.undefended) == UNDEFENDED
    assert list(found.label_only) == LABEL_ONLY
    assert apply_checks(SUITE[0], found) == apply_checks(SUITE[0], context())


def test_every_check_is_documented_under_its_own_name():
    assert all(name == check.name for name, check in CHECKS.items())
    table = checks_table()
    assert [row[0] for row in table] == list(apply_checks(SUITE[0], context()))
    assert all(len(row) == 3 and all(row) for row in table)
