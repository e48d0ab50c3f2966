"""Log loss and Brier score against scikit-learn and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import Tensor

from mipoison.metrics import expected_calibration_error
from mipoison.metrics.scoring import SCORING_COLUMNS, brier_score, log_loss, scoring_metrics


def given(n: int = 60, k: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.softmax(2 * torch.randn(n, k, generator=rng), 1), torch.randint(k, (n,), generator=rng)


def test_log_loss_is_scikit_learns() -> None:
    c, y = given()
    p = c.double().numpy()
    p /= p.sum(1, keepdims=True)
    assert log_loss(c, y) == pytest.approx(sklearn.metrics.log_loss(y.numpy(), p, labels=range(5)), rel=1e-9)


def test_a_score_of_zero_costs_what_the_floor_says() -> None:
    y = torch.tensor([0, 1])
    assert log_loss(torch.eye(2)[y], y) == 0
    assert log_loss(torch.eye(2)[1 - y], y) == pytest.approx(12 * math.log(10))


def test_brier_score_is_the_loop_and_scikit_learns_for_two_classes() -> None:
    c, y = given()
    rows = [
        sum((float(p) - (j == int(label))) ** 2 for j, p in enumerate(row))
        for row, label in zip(c, y, strict=True)
    ]
    assert brier_score(c, y) == pytest.approx(np.mean(rows), rel=1e-6)
    c, y = given(k=2)
    one = sklearn.metrics.brier_score_loss(y.numpy(), c[:, 1].double().numpy())
    assert brier_score(c, y) == pytest.approx(2 * one, rel=1e-6)
    assert brier_score(torch.eye(2)[1 - y], y) == 2
    assert brier_score(torch.eye(2)[y], y) == 0


def test_columns_hold_released_and_clean_scores() -> None:
    (clean, y), (released, _) = given(), given(seed=1)
    found = scoring_metrics(clean, released, y)
    assert tuple(found) == SCORING_COLUMNS
    assert (found["log_loss"], found["clean_log_loss"]) == (log_loss(released, y), log_loss(clean, y))
    assert (found["brier_score"], found["clean_brier_score"]) == (
        brier_score(released, y), brier_score(clean, y))  # fmt: skip
    assert found["clean_ece"] == expected_calibration_error(clean, y)


@pytest.mark.parametrize("function", [log_loss, brier_score])
def test_what_is_refused(function) -> None:
    c, y = given()
    with pytest.raises(ValueError, match="simplex"):
        function(c * 2, y)
    with pytest.raises(ValueError, match=r"lie in 0\.\.4"):
        function(c, y + 5)
