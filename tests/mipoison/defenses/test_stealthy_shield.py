"""Stealthy Shield: the convex problem against a general solver, its means, its draw, and the two labels."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from mipoison.defenses.stealthy_shield import drawn_label, label_means, nearest_in_kl
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import fitted, pictures, protect, vectors, view_of


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(np.maximum(p, 1e-300) / q)).sum())


def solved(c: np.ndarray, q: np.ndarray, bound: float) -> np.ndarray:
    """The same problem for scipy: p = c + up - down, of which up and down sum to the bound at most."""
    k = len(c)

    def p_of(v: np.ndarray) -> np.ndarray:
        return c + v[:k] - v[k:]

    def value(v: np.ndarray) -> float:
        return kl(np.clip(p_of(v), 1e-15, None), q)

    constraints = [
        {"type": "eq", "fun": lambda v: v[:k].sum() - v[k:].sum()},
        {"type": "ineq", "fun": lambda v: bound - v.sum()},
        {"type": "ineq", "fun": lambda v: p_of(v) - 1e-12},
    ]
    best = None
    for share in (0.0, 0.5):  # from c, and from half the way to q
        way = share * min(1.0, bound / np.abs(q - c).sum()) * (q - c)
        start = np.concatenate([np.maximum(way, 0), np.maximum(-way, 0)])
        found = minimize(
            value, start, bounds=[(0, 1)] * (2 * k), constraints=constraints, method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-13},
        )  # fmt: skip
        if best is None or found.fun < best.fun:
            best = found
    return p_of(best.x)


@pytest.mark.parametrize("k", [2, 3, 6])
@pytest.mark.parametrize("bound", [0.01, 0.2, 0.6])
def test_the_levels_solve_the_convex_problem(k: int, bound: float) -> None:
    c, q = vectors(12, k, sharpness=1.5).double(), vectors(12, k, seed=1).double()
    c, q = c / c.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    p = nearest_in_kl(c, q, torch.full((12,), bound, dtype=torch.float64))
    assert float((p.sum(1) - 1).abs().max()) < 1e-12
    distance = (p - c).abs().sum(1)
    assert float(distance.max()) <= bound + 1e-12
    far = (c - q).abs().sum(1) > bound
    assert torch.allclose(distance[far], torch.full_like(distance[far], bound), atol=1e-12, rtol=0)
    assert torch.equal(p[~far], q[~far])
    for row, c_K, q_K in zip(p.numpy(), c.numpy(), q.numpy(), strict=True):
        expected = solved(c_K, q_K, bound)
        assert abs(kl(row, q_K) - kl(expected, q_K)) < 1e-7
        assert np.abs(row - expected).max() < 1e-4


def test_no_point_within_the_bound_is_nearer() -> None:
    """Against a grid of the triangle, where the solver's own constraints play no part."""
    steps = 200
    i, j = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")
    inside = i + j <= steps
    grid = np.stack([i[inside], j[inside], steps - i[inside] - j[inside]], 1) / steps
    c, q = vectors(20, 3, sharpness=3.0).double(), vectors(20, 3, seed=2).double()
    p = nearest_in_kl(c, q, torch.full((20,), 0.3, dtype=torch.float64)).numpy()
    for row, c_K, q_K in zip(p, c.numpy(), q.numpy(), strict=True):
        near = grid[np.abs(grid - c_K).sum(1) <= 0.3]
        best = min(kl(point, q_K) for point in near)
        assert kl(row, q_K) <= best + 1e-9
        assert kl(row, q_K) >= best - 0.05  # no point outside the bound either


def test_scores_between_the_levels_are_the_clean_ones() -> None:
    """The weakness of clipping: what is neither raised nor lowered is released bit for bit."""
    c, q = vectors(50, 6, sharpness=1.0).double(), vectors(50, 6, seed=1, sharpness=1.0).double()
    c, q = c / c.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    p = nearest_in_kl(c, q, torch.full((50,), 0.05, dtype=torch.float64))
    same = (p == c).sum(1)
    assert int(same.min()) >= 2
    assert int(same.max()) <= 4


def test_label_means_by_hand() -> None:
    c = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.4, 0.0], [0.3, 0.5, 0.2]])
    means = label_means(c, torch.tensor([0, 0, 1]))
    expected = [[0.7, 0.25, 0.05], [0.3, 0.5, 0.2], [(1 - 1.9 / 3) / 2, (1 - 1.9 / 3) / 2, 1.9 / 3]]
    torch.testing.assert_close(means, torch.tensor(expected, dtype=torch.float64))


def test_labels_are_drawn_with_the_stated_chances() -> None:
    c = torch.tensor([[0.55, 0.4, 0.05]], dtype=torch.float64)
    u = (torch.arange(10_000, dtype=torch.float64)[:, None] + 0.5) / 10_000
    label = drawn_label(c.expand(10_000, -1) / 0.1, u)
    share = torch.bincount(label, minlength=3) / 10_000
    assert torch.allclose(share.double(), torch.softmax(c[0] / 0.1, 0), atol=1e-4)
    assert bool((share > 0).all())


@pytest.fixture(scope="module")
def view(make_decoder):
    """Private vectors whose labels are not always their maximum, as of a victim that errs."""
    view = view_of(make_decoder(5), 5, n=200)
    y: Tensor = view.y_private_N.clone()
    y[::7] = (y[::7] + 1) % 5
    return dataclasses.replace(view, y_private_N=y)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 3.0])
def test_the_bound_is_the_entropy_s_share_and_own_labels_are_kept(view, epsilon: float) -> None:
    c = vectors(300, sharpness=1.0)
    drawn, own = (fitted("stealthy-shield", view, epsilon=epsilon, label=how) for how in ("drawn", "own"))
    bound = epsilon * torch.special.entr(c.double()).sum(1)
    for defense in (drawn, own):
        z = protect(defense, c, pictures(300))
        assert bool(((z.double() - c.double()).abs().sum(1) <= bound + 1e-6).all())
        assert not torch.equal(z, c)
    assert torch.equal(label_of(protect(own, c, pictures(300))), label_of(c))
    assert not torch.equal(label_of(protect(drawn, c, pictures(300))), label_of(c))


def test_a_wide_bound_releases_the_label_s_mean_alone(view) -> None:
    own = fitted("stealthy-shield", view, epsilon=100.0, label="own")
    c = vectors(100, sharpness=1.0)
    z = protect(own, c, pictures(100))
    assert len(torch.unique(z, dim=0)) == len(torch.unique(label_of(c)))


def test_conditional_information_falls_with_epsilon(view) -> None:
    """What it minimises, measured with the means of what was released and not with those it aims at."""
    c, x = view.c_private_NK, view.x_private_NCHW
    found = []
    for epsilon in (0.0, 0.2, 0.5, 1.5):
        z = protect(fitted("stealthy-shield", view, epsilon=epsilon, label="own"), c, x).double()
        q = label_means(z, label_of(c))[label_of(c)]
        found.append(float((torch.special.entr(q) - torch.special.entr(z)).sum(1).mean()))
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.1 * found[0]
