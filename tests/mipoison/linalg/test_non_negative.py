"""Weights from inner products against SciPy on the rows themselves, and against a general optimiser."""

import numpy as np
import pytest
import scipy.optimize
import torch

from mipoison.linalg.non_negative import non_negative_least_squares
from mipoison.randomness import generator


def test_they_are_scipy_s_on_the_rows() -> None:
    rows_EJ = torch.randn(50, 4, generator=generator(0, "nnls"), dtype=torch.float64) / 7
    right_E = rows_EJ @ torch.tensor([0.8, 0.0, 0.3, -0.5], dtype=torch.float64)
    expected = scipy.optimize.nnls(rows_EJ.numpy(), right_E.numpy())[0]
    assert expected[3] == 0
    found = non_negative_least_squares(rows_EJ.mT @ rows_EJ, rows_EJ.mT @ right_E)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("total", [1.0, 2.5])
def test_a_total_without_a_target_is_the_least_norm(total: float) -> None:
    scale_J = torch.tensor([1.0, 0.7, 0.8, 9.0], dtype=torch.float64)
    rows_EJ = torch.randn(60, 4, generator=generator(1, "nnls"), dtype=torch.float64) * scale_J + 0.3
    gram = (rows_EJ.mT @ rows_EJ / 60).numpy()
    found = non_negative_least_squares(gram, total=total)
    best = scipy.optimize.minimize(
        lambda w: w @ gram @ w, np.full(4, total / 4), jac=lambda w: 2 * gram @ w, bounds=[(0, None)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - total}, options={"ftol": 1e-15},
    )  # fmt: skip
    np.testing.assert_allclose(found, best.x, atol=1e-4)
    assert float(found.sum()) == pytest.approx(total, rel=1e-5)


def test_what_is_given_twice_shares_its_weight() -> None:
    """G has no inverse, with a target and without."""
    same = torch.ones(3, 3, dtype=torch.float64)
    assert float(non_negative_least_squares(same, 0.4 * same[0]).sum()) == pytest.approx(0.4)
    assert float(non_negative_least_squares(same, total=1.0).sum()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("total", [None, 1.0])
def test_both_libraries_find_the_same(total: float | None) -> None:
    rows_EJ = torch.rand(30, 5, generator=generator(2, "nnls"), dtype=torch.float64)
    gram_JJ, target_J = rows_EJ.mT @ rows_EJ / 30, rows_EJ.mean(0)
    of_torch = non_negative_least_squares(gram_JJ, target_J, total=total)
    of_numpy = non_negative_least_squares(gram_JJ.numpy(), target_J.numpy(), total=total)
    np.testing.assert_allclose(of_torch, of_numpy, atol=1e-7)
