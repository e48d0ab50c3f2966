"""Weights by non-negative least squares, against scipy on the plain design matrix."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from mipoison.attacks.weighting import (
    BLOCKS,
    SCHEMES,
    Products,
    Scheme,
    combine,
    leading_components,
    non_negative,
)
from mipoison.randomness import generator

PLAIN = Scheme(blocks=False, labels=False)


def case(n: int = 60, d: int = 30, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Deviations of three attackers, true ones (0.6 of the first, 0.3 of the second, none of the third, and
    noise), labels and folds."""
    rng = generator(seed, "weights")
    d_JND = torch.randn(3, n, d, generator=rng)
    r_ND = 0.6 * d_JND[0] + 0.3 * d_JND[1] - 0.2 * d_JND[2] + torch.randn(n, d, generator=rng)
    return d_JND, r_ND, torch.arange(n) % 3, torch.arange(n) % 4


def products(n: int = 60, d: int = 30, seed: int = 0) -> Products:
    d_JND, r_ND, label_N, fold_N = case(n, d, seed)
    return Products.of(d_JND, r_ND, label_N, fold_N, leading_components(r_ND.double(), 20), 3)


@pytest.mark.parametrize(("n", "d"), [(40, 12), (12, 40)])
def test_components_are_those_of_a_singular_value_decomposition(n: int, d: int) -> None:
    x = torch.randn(n, d, generator=generator(0), dtype=torch.float64)
    basis = leading_components(x, 5)
    _, _, rows = np.linalg.svd(x.numpy(), full_matrices=False)
    np.testing.assert_allclose(np.abs(rows[:5] @ basis.numpy()), np.eye(5), atol=1e-9)


def test_components_of_images_that_do_not_vary() -> None:
    basis = leading_components(torch.zeros(3, 8, dtype=torch.float64), 5)
    assert bool(basis.isfinite().all())


def test_common_weights_are_scipy_s() -> None:
    d_JND, r_ND, _, _ = case()
    expected = scipy.optimize.nnls(d_JND.flatten(1).T.double().numpy(), r_ND.flatten().double().numpy())[0]
    found = products().weights(PLAIN)
    assert expected[2] == 0  # it would be negative
    np.testing.assert_allclose(found.numpy(), np.broadcast_to(expected, found.shape), atol=1e-7)


def test_weights_without_a_fold_are_those_of_the_other_images() -> None:
    d_JND, r_ND, _, fold_N = case()
    rest = fold_N != 2
    expected = scipy.optimize.nnls(
        d_JND[:, rest].flatten(1).T.double().numpy(), r_ND[rest].flatten().double().numpy()
    )[0]
    np.testing.assert_allclose(products().weights(PLAIN, without=2)[0, 0].numpy(), expected, atol=1e-7)


def test_weights_of_a_block_use_its_components_alone() -> None:
    d_JND, r_ND, _, _ = case()
    basis = leading_components(r_ND.double(), 20)
    found = products().weights(Scheme(blocks=True, labels=False))
    ends = [0, *BLOCKS, 20]
    for b, (start, stop) in enumerate(itertools.pairwise(ends)):
        part = basis[:, start:stop]
        expected = scipy.optimize.nnls(
            (d_JND.double() @ part).flatten(1).T.numpy(), (r_ND.double() @ part).flatten().numpy()
        )[0]
        np.testing.assert_allclose(found[0, b].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_error_is_that_of_the_weighted_sum(scheme: Scheme) -> None:
    d_JND, r_ND, label_N, fold_N = case()
    basis = leading_components(r_ND.double(), 20)
    sums = products()
    w_GBJ = sums.weights(scheme, without=1)
    out_ND = combine(d_JND, label_N, w_GBJ, basis)
    held = fold_N == 1
    expected = (r_ND - out_ND)[held].square().sum() - r_ND[held].double().square().sum()
    assert sums.error(w_GBJ, 1) == pytest.approx(float(expected), rel=1e-6)
    assert sums.total == pytest.approx(float(r_ND.double().square().sum()), rel=1e-9)


def test_one_set_of_weights_is_a_plain_weighted_sum() -> None:
    d_JND, r_ND, label_N, _ = case()
    w_J = torch.tensor([0.5, 0.0, 1.5], dtype=torch.float64)
    basis = leading_components(r_ND.double(), 20)
    found = combine(d_JND, label_N, w_J.expand(3, 4, 3), basis)
    torch.testing.assert_close(found, torch.einsum("j,jnd->nd", w_J, d_JND.double()))


def test_a_scheme_is_chosen_where_the_truth_needs_it() -> None:
    d_JND, _, label_N, fold_N = case(900)
    w_GJ = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    r_ND = torch.einsum("nj,jnd->nd", w_GJ[label_N], d_JND)
    sums = Products.of(d_JND, r_ND, label_N, fold_N, leading_components(r_ND.double(), 20), 3)
    w_GBJ, scheme, _ = sums.best()
    assert scheme is not None
    assert scheme.labels
    # shrunk towards the common weights, 1/3 each, by 64 images among 300 a label
    assert float(w_GBJ.diagonal(dim1=0, dim2=2).min()) > 0.8


def test_attackers_that_know_nothing_are_given_no_weight() -> None:
    """Deviations unrelated to the truth: hardly any weight, and whatever they get cannot cost much."""
    rng = generator(3, "nothing")
    d_JND, r_ND = torch.randn(5, 300, 40, generator=rng), torch.randn(300, 40, generator=rng)
    label_N, fold_N = torch.arange(300) % 3, torch.arange(300) % 5
    sums = Products.of(d_JND, r_ND, label_N, fold_N, leading_components(r_ND.double(), 20), 3)
    w_GBJ, _, _ = sums.best()
    fresh_JND, fresh_ND = torch.randn(5, 3000, 40, generator=rng), torch.randn(3000, 40, generator=rng)
    out_ND = combine(fresh_JND, torch.arange(3000) % 3, w_GBJ, leading_components(r_ND.double(), 20))
    assert float((fresh_ND - out_ND).square().mean() / fresh_ND.square().mean()) < 1.005


def test_attackers_that_agree_or_answer_zero() -> None:
    same = torch.ones(3, 3, dtype=torch.float64)
    w_J = non_negative(same, torch.ones(3, dtype=torch.float64))
    assert float(w_J.sum()) == pytest.approx(1)
    zero = torch.zeros(2, 2, dtype=torch.float64)
    assert non_negative(zero, torch.zeros(2, dtype=torch.float64)).tolist() == [0, 0]
