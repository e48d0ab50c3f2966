"""Regressions on two levels: against the dense system of both functions, and what they are for."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.attacks.kernel_regression import Regression
from mipoison.attacks.kernel_ridge import Kernel
from mipoison.attacks.selection import Standardised
from mipoison.attacks.two_levels import APART, PENALTIES, TwoLevels
from mipoison.randomness import generator

KERNEL = Kernel("inverse", 0.5, across=0.5)


def pairs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = generator(seed, "pairs")
    c_NK = torch.softmax(2 * torch.randn(n, 3, generator=rng, dtype=torch.float64), 1)
    return c_NK, torch.randn(n, 5, generator=rng, dtype=torch.float64)


def two_levels(landmarks: int = 30, asked: int = 50, apart: float = 0.3) -> TwoLevels:
    (c, y), (answer, target) = pairs(30, 0), pairs(asked, 1)
    return TwoLevels(Standardised(c, "log"), KERNEL, c, y, answer, target, landmarks, apart)


@pytest.mark.parametrize("apart", [0.0, 0.05, 2.0])
@pytest.mark.parametrize("landmarks", [12, 30])
def test_it_solves_the_normal_equations_of_both_functions(landmarks: int, apart: float) -> None:
    """f and g as one vector of weights: rows of images read both, rows of questions read f alone."""
    (c, y), (answer, target), penalty = pairs(30, 0), pairs(50, 1), 0.3
    found = two_levels(landmarks).at(apart)
    own, asked = found.gram(c).numpy(), found.gram(answer).numpy()
    assert own.shape == (30, landmarks)
    among, root = own[:landmarks], np.sqrt(apart)
    design = np.block([[own, root * own], [asked, np.zeros_like(asked)]])
    zero = np.zeros_like(among)
    square = design.T @ design + penalty * np.block([[among, zero], [zero, among]])
    both = np.linalg.solve(square, design.T @ np.concatenate([y.numpy(), target.numpy()]))
    expected = own @ (both[:landmarks] + root * both[landmarks:])
    np.testing.assert_allclose(own @ found.weights(penalty).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(found.voter(penalty, 0.25)(c).numpy(), 0.25 * expected, atol=1e-6)


def test_it_is_the_posterior_mean_of_a_gaussian_process() -> None:
    """All images are landmarks, and questions have the answers of images: so no function is out of reach."""
    c, y = pairs(30, 0)
    some, penalty, apart = torch.arange(30).repeat(2)[:50], 0.3, 0.7
    target = y[some] + 0.5
    found = TwoLevels(Standardised(c, "log"), KERNEL, c, y, c[some], target, 30, apart)
    k = found.gram(c).numpy()
    i, cov = some.numpy(), np.zeros((80, 80))
    cov[:30, :30], cov[:30, 30:], cov[30:, :30] = (1 + apart) * k, k[:, i], k[i]
    cov[30:, 30:] = k[i][:, i]
    to = np.concatenate([(1 + apart) * k, k[:, i]], 1)
    expected = to @ np.linalg.solve(cov + penalty * np.eye(80), torch.cat([y, target]).numpy())
    np.testing.assert_allclose(k @ found.weights(penalty).numpy(), expected, atol=1e-6)


def test_without_a_difference_it_is_the_regression_on_all_pairs() -> None:
    (c, y), (answer, target) = pairs(30, 0), pairs(50, 1)
    standardise = Standardised(c, "log")
    plain = Regression(standardise, KERNEL, torch.cat([c, answer]), torch.cat([y, target]), 30)
    torch.testing.assert_close(
        plain.gram(c) @ two_levels(apart=0.0).weights(1.0)[:30],
        plain.gram(c) @ plain.weights(1.0),
        atol=1e-6,
        rtol=0,
    )


def test_far_apart_or_without_questions_images_count_alone() -> None:
    c, y = pairs(30, 0)
    alone = Regression(Standardised(c, "log"), KERNEL, c, y, 30)
    without = two_levels(asked=0, apart=0.0)
    torch.testing.assert_close(
        without.gram(c) @ without.weights(1.0), alone.gram(c) @ alone.weights(1.0), atol=1e-6, rtol=0
    )
    # g alone, with a million times the variance, is a regression with a millionth of the penalty.
    apart = two_levels(apart=1e6)
    torch.testing.assert_close(
        apart.gram(c) @ apart.weights(1e6), alone.gram(c) @ alone.weights(1.0), atol=1e-3, rtol=0
    )


def error(asked: int, apart: float) -> float:
    """Least error of all penalties where questions tell a wave, and images the wave and a slope: in the mean
    of five data sets of 30 images."""
    rng, error_5L = generator(3, "otherwise"), []
    for _ in range(5):
        t = 6 * torch.rand(30 + 400 + asked, 1, generator=rng, dtype=torch.float64) - 3
        c = torch.cat([t.sigmoid(), (-t).sigmoid()], 1)
        y = torch.sin(5 * t) + 0.4 * torch.randn(len(t), 1, generator=rng, dtype=torch.float64)
        y[:430] += 0.4 * t[:430]
        own, new, made = slice(30), slice(30, 430), slice(430, None)
        found = TwoLevels(Standardised(c[own], "log"), KERNEL, c[own], y[own], c[made], y[made], 30, apart)
        gram = found.gram(c[new])
        error_5L.append([float((gram @ found.weights(p) - y[new]).square().mean()) for p in PENALTIES])
    return float(np.mean(error_5L, 0).min())


def test_it_reads_more_where_questions_are_answered_otherwise() -> None:
    """Than where questions count as images do, and than images alone."""
    assert min(error(300, apart) for apart in APART if apart) < 0.95 * min(error(300, 0.0), error(0, 0.0))
