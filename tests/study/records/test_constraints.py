"""Bounds on utility: which settings keep within them, in tables, in the search and in words."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mipoison.config import ConfigError
from study.records.constraints import FACES, FIELDS, Constraints, UtilityBounds, bound_of, is_bound
from study.records.schema import episode_schema

CLEAN = {
    "model_accuracy": 0.9, "protected_accuracy": 0.9, "confidence_distortion": 0.0, "label_agreement": 1.0,
    "rank_correlation": 1.0, "tail_rank_correlation": 1.0, "top2_agreement": 1.0, "top5_agreement": 1.0,
    "log_loss": 0.3, "clean_log_loss": 0.3, "brier_score": 0.2, "clean_brier_score": 0.2, "ece": 0.1,
    "clean_ece": 0.1,
}  # fmt: skip
"""The record of an undefended victim."""


def test_every_face_has_one_bound_and_columns_that_records_have() -> None:
    fields = {f.name: f.default for f in dataclasses.fields(UtilityBounds)}
    assert list(fields) == [bound_of(name) for name in FACES] == list(FIELDS)
    assert fields.pop("max_accuracy_drop") == 0.02
    assert set(fields.values()) == {None}
    columns = {column for face in FACES.values() for column in face.columns}
    assert columns <= set(episode_schema().names)
    assert columns == set(CLEAN)


@pytest.mark.parametrize("field", FIELDS)
def test_no_defense_at_all_keeps_within_every_bound(field: str) -> None:
    """The strictest bound of each face: what costs nothing satisfies it."""
    face = FIELDS[field]
    strict = Constraints(**{field: face.high if face.more_is_better else face.low})
    values = {name: known.of(CLEAN) for name, known in FACES.items()}
    assert strict.satisfied(pd.DataFrame([values])).all()
    assert all(v <= 0 for v in strict.violations(values).values())


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [-1.5, 30.0, math.nan, math.inf, True, "0.5"])
def test_a_bound_out_of_its_range_is_refused_with_what_to_do(field: str, value: Any) -> None:
    assert not is_bound(field, value)
    with pytest.raises(ConfigError) as error:
        Constraints(**{field: value})
    message = str(error.value)
    assert message.startswith(f"{field} = {value}: must be between ")
    assert "no bound" in message
    assert f"--{field.replace('_', '-')}" in message


def test_only_the_accuracy_has_to_have_a_bound() -> None:
    assert [field for field in FIELDS if not is_bound(field, None)] == ["max_accuracy_drop"]
    with pytest.raises(ConfigError, match="1 is no bound"):
        Constraints(max_accuracy_drop=None)  # type: ignore[arg-type]


def test_a_setting_has_to_satisfy_all_and_what_is_unknown_satisfies_nothing() -> None:
    bounds = Constraints(max_accuracy_drop=0.01, min_top5_agreement=0.9, max_log_loss_increase=0.1)
    table = pd.DataFrame(
        [
            (0.0, 0.95, 0.05),
            (0.01, 0.9, 0.1),  # at every bound
            (0.96 - 0.95, 0.9, 0.4 - 0.3),  # above 0.01 and 0.1 in binary
            (0.02, 0.95, 0.05),
            (0.0, 0.89, 0.05),
            (0.0, 0.95, 0.11),
            (0.0, 0.95, None),
            (None, 0.95, 0.05),
        ],
        columns=["accuracy_drop", "top5_agreement", "log_loss_increase"],
        index=list("abcdefgh"),
    )
    assert bounds.satisfied(table).tolist() == [True, True, True, False, False, False, False, False]
    assert bounds.satisfied(table.astype("Float64")).tolist() == bounds.satisfied(table).tolist()
    broken = bounds.broken(table)
    assert list(broken.index) == list(table.index)
    assert broken.loc["e"].to_dict() == {
        "accuracy_drop": False, "top5_agreement": True, "log_loss_increase": False,
    }  # fmt: skip
    assert len(bounds.satisfied(table.iloc[:0])) == 0


def test_optuna_is_told_how_far_each_bound_is_missed() -> None:
    bounds = Constraints(max_accuracy_drop=0.01, min_top5_agreement=0.9)
    assert bounds.violations({"accuracy_drop": 0.03, "top5_agreement": 0.95}) == pytest.approx(
        {"accuracy_drop": 0.02, "top5_agreement": -0.05}
    )
    unknown = bounds.violations({"accuracy_drop": 0.0})
    assert unknown["top5_agreement"] > 0 > unknown["accuracy_drop"]


def test_a_face_is_a_column_or_the_difference_of_two() -> None:
    record = CLEAN | {"log_loss": 0.45, "protected_accuracy": 0.85, "top2_agreement": None}
    assert FACES["log_loss_increase"].of(record) == pytest.approx(0.15)
    assert FACES["accuracy_drop"].of(record) == pytest.approx(0.05)
    assert FACES["top2_agreement"].of(record) is None
    assert FACES["log_loss_increase"].of(record | {"clean_log_loss": None}) is None
    assert FACES["ece_increase"].of({}) is None


def test_the_columns_are_those_that_the_bounds_need() -> None:
    assert Constraints().columns == ("model_accuracy", "protected_accuracy")
    more = Constraints(max_ece_increase=0.1, min_rank_correlation=0.5)
    assert set(more.columns) - set(Constraints().columns) == {"ece", "clean_ece", "rank_correlation"}


def test_it_says_itself_in_a_phrase() -> None:
    assert str(Constraints()) == "accuracy drop at most 0.02"
    bounds = Constraints(max_accuracy_drop=0.01, min_top5_agreement=0.9)
    assert str(bounds) == "accuracy drop at most 0.01, top-5 agreement at least 0.9"


def test_too_few_classes_for_a_face_are_refused() -> None:
    Constraints().check_classes(2)
    bounds = Constraints(min_top5_agreement=0.9)
    bounds.check_classes(6)
    with pytest.raises(
        ConfigError, match=r"^min_top5_agreement = 0.9: .* 6 classes .* has 5; leave --min-top5"
    ):
        bounds.check_classes(5)


def test_they_travel_flat_and_older_studies_have_none() -> None:
    bounds = Constraints(max_accuracy_drop=0.1, max_confidence_distortion=0.05)
    assert Constraints(**bounds.flat()) == Constraints.of(bounds) == bounds
    assert Constraints.stored({**bounds.flat(), "scale": "quick"}) == bounds
    assert Constraints.stored({"max_accuracy_drop": 0.1, "scale": "quick"}) == Constraints(
        max_accuracy_drop=0.1
    )
    assert Constraints.stored({}) == Constraints()


def test_the_rules_agree_with_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    bounds = Constraints(**{bound_of(name): 0.5 for name in FACES})
    table = pd.DataFrame({name: rng.uniform(0.2, 0.8, 400) for name in FACES}).mask(
        rng.random((400, 10)) < 0.02
    )
    table.loc[:20] = 0.5
    for kept, (_, row) in zip(bounds.satisfied(table), table.iterrows(), strict=True):
        fine = [
            (row[name] >= 0.5 if face.more_is_better else row[name] <= 0.5) and not math.isnan(row[name])
            for name, face in FACES.items()
        ]
        assert kept == all(fine)
