"""The written image against scikit-learn, all permutations, known shares of variance, and pure chance."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from mipoison.metrics import written_image as module
from mipoison.metrics.check_conditions import WRITTEN_Z
from mipoison.metrics.written_image import (
    SPACES,
    WRITTEN_COLUMNS,
    LabelMeans,
    ResidualKernel,
    exchange_z,
    label_constants,
    written_image,
)
from mipoison.simplex import label_of

Part = tuple[Tensor, Tensor, Tensor]


def world(
    seed: int, *, n: int = 120, signal: float = 0.0, tail: float = 0.0, n_labels: int = 5
) -> list[Part]:
    """Answers, images and labels of the attacker's images and two private pools.

    Images of a label vary in four directions and a little in all; answers are normal, ``signal`` times the
    first direction added to each score. ``tail``: power of a uniform number that divides them.
    """
    g = torch.Generator().manual_seed(seed)
    mean_LD, basis_RD = torch.randn(n_labels, 20, generator=g), torch.randn(4, 20, generator=g)
    parts = []
    for _ in range(3):
        label_N = torch.randint(0, n_labels, (n,), generator=g)
        code_NR = torch.randn(n, 4, generator=g)
        x_ND = mean_LD[label_N] + code_NR @ basis_RD + 0.3 * torch.randn(n, 20, generator=g)
        z_NK = torch.randn(n, n_labels, generator=g) / torch.rand(n, 1, generator=g) ** tail
        parts.append((z_NK + signal * code_NR[:, :1], x_ND, label_N))
    return parts


def test_what_is_chosen_has_the_least_error_when_each_image_is_left_out_by_hand() -> None:
    """Each image is left out in turn and predicted by scikit-learn, for every space, kernel and penalty."""
    (c, x, label), (new, _, new_label), _ = world(1, n=15, signal=1.0, n_labels=3)
    found = ResidualKernel(c, x, label, 3)
    y = (x.double() - LabelMeans(x.double(), label, 3)(label)).numpy()

    def kernels(kind: tuple[str, str, str], rows: Tensor, row_label: Tensor) -> np.ndarray:
        space, shape, scope = kind
        of = SPACES[space]
        away = (of(c) - LabelMeans(of(c), label, 3)(label)).numpy()
        scale = np.sqrt((away**2).mean(0))
        z, own = (of(rows) - LabelMeans(of(c), label, 3)(row_label)).numpy() / scale, away / scale
        z = np.clip(z, own.min(0), own.max(0))
        square = ((z[:, None] - own[None]) ** 2).sum(2)
        kernel = z @ own.T if shape == "linear" else np.exp(-square / (2 * z.shape[1]))
        return kernel * (row_label.numpy()[:, None] == label.numpy()) if scope == "label" else kernel

    errors = {}
    for kind in itertools.product(SPACES, ("linear", "gaussian"), ("all", "label")):
        kernel = kernels(kind, c, label)
        for penalty in module.PENALTIES:
            total = 0.0
            for i in range(len(y)):
                rest = np.arange(len(y)) != i
                model = KernelRidge(alpha=penalty * np.diag(kernel).mean(), kernel="precomputed")
                model.fit(kernel[rest][:, rest], y[rest])
                total += ((model.predict(kernel[i : i + 1, rest]) - y[i]) ** 2).sum()
            errors[kind, penalty] = total
    kind, penalty = min(errors, key=lambda key: errors[key])
    assert errors[kind, penalty] < (y**2).sum()
    assert found.kind == kind
    kernel = kernels(kind, c, label)
    model = KernelRidge(alpha=penalty * np.diag(kernel).mean(), kernel="precomputed").fit(kernel, y)
    expected = model.predict(kernels(kind, new, new_label))
    assert found.predict(new, new_label).numpy() == pytest.approx(expected, abs=1e-9)


def test_z_is_that_of_all_permutations() -> None:
    g = torch.Generator().manual_seed(0)
    residual, predicted = (torch.randn(8, 3, generator=g, dtype=torch.float64) for _ in range(2))
    label = torch.tensor([0, 1, 0, 0, 1, 2, 1, 0])  # the 2 is alone and says nothing
    zero, one = ((label == k).nonzero()[:, 0] for k in (0, 1))
    sums = []
    for first in itertools.permutations(zero.tolist()):
        for second in itertools.permutations(one.tolist()):
            moved = predicted.clone()
            moved[zero], moved[one] = predicted[list(first)], predicted[list(second)]
            sums.append(float((residual * moved).sum()))
    own = float((residual * predicted).sum())
    assert exchange_z(residual, predicted, label) == pytest.approx((own - np.mean(sums)) / np.std(sums))
    assert exchange_z(residual, torch.ones_like(predicted), label) == 0


@pytest.mark.parametrize("tail", [0.0, 1.0], ids=["normal", "heavy tails"])
def test_chance_alone_is_hardly_ever_taken_for_writing(tail: float) -> None:
    """A false alarm on one of two pools in at most 1 % of the settings, and z no wider than standard."""
    z = np.array([found(world(seed, n=60, tail=tail))[1] for seed in range(200)])
    assert (z.max(1) > WRITTEN_Z).mean() <= 0.01
    assert abs(z.mean()) < 0.15
    assert z.std() < 1.1


def found(parts: list[Part], n_labels: int = 5) -> tuple[list[float], list[float]]:
    """Excess and z of both private pools."""
    attacker = ResidualKernel(*parts[0], n_labels)
    told = [written_image(attacker, *part) for part in parts[1:]]
    return [t.excess for t in told], [t.z for t in told]


def test_means_that_differ_between_attacker_and_victim_are_no_writing() -> None:
    """Private images are brighter: a constant could help, but no answer says which image is which."""
    for seed in range(40):
        own, *private = world(seed)
        brighter = [(c, x + 0.5, label) for c, x, label in private]
        assert max(found([own, *brighter])[1]) < WRITTEN_Z


def test_a_written_number_explains_its_share_of_the_variance() -> None:
    """Five noisy copies of one of four directions: the best linear reader removes 5/6 of that direction."""
    parts = world(3, n=500, signal=1.0)
    excess, z = found(parts)
    g = torch.Generator().manual_seed(3)
    torch.randn(5, 20, generator=g)  # the labels' means, drawn before the directions
    basis = torch.randn(4, 20, generator=g)
    share = float(basis[0].square().sum() / (basis.square().sum() + 20 * 0.09)) * 5 / 6
    assert excess == pytest.approx([share] * 2, abs=0.05)
    assert min(z) > 10


def test_answers_that_do_not_vary_say_nothing() -> None:
    """Label-only: one answer per label; and answers that vary by less than their rounding."""
    parts = [(torch.eye(5)[label], x, label) for _, x, label in world(0)]
    assert found(parts) == ([0.0, 0.0], [0.0, 0.0])
    dusty = [(0.2 + 1e-14 * c.double(), x, label) for c, x, label in world(0, signal=5.0)]
    assert found(dusty) == ([0.0, 0.0], [0.0, 0.0])


def test_labels_that_the_attacker_never_saw_are_left_out() -> None:
    own, private, other = world(5, signal=1.0)
    known = own[2] != 4
    attacker = ResidualKernel(*(t[known] for t in own), 5)
    inside = private[2] != 4
    assert written_image(attacker, *private) == written_image(attacker, *(t[inside] for t in private))
    strange = tuple(t[other[2] == 4] for t in other)
    assert written_image(attacker, *strange) == module.Written(0.0, 0.0)
    assert written_image(attacker, *(t[:0] for t in other)) == module.Written(0.0, 0.0)


def test_constants_have_their_label_and_are_of_picked_unsure_vectors() -> None:
    sure = torch.linspace(0.6, 0.95, 8)
    zero = torch.stack([sure, 0.9 - 0.9 * sure, 0.1 - 0.1 * sure], 1)
    c = torch.cat([zero, torch.tensor([[0.1, 0.8, 0.1]])])[torch.randperm(9)]
    constants = label_constants(c, torch.ones(9, dtype=torch.bool))
    torch.testing.assert_close(constants[0], zero[:2].mean(0))  # a quarter of eight
    torch.testing.assert_close(constants[1:], torch.tensor([[0.1, 0.8, 0.1], [0.0, 0.0, 1.0]]))
    picked = label_constants(c, c.amax(1) > 0.82)
    torch.testing.assert_close(picked[0], zero[5])  # the least sure of 0.85, 0.9 and 0.95
    torch.testing.assert_close(picked[1], constants[1])  # none is picked: of all
    tied = label_constants(torch.full((3, 3), 1 / 3), torch.ones(3, dtype=torch.bool))
    assert label_of(tied).tolist() == [0, 1, 2]


def test_what_is_refused() -> None:
    (c, x, label), _, _ = world(0)
    with pytest.raises(ValueError, match=r"at least 4 images .* got 3 images"):
        ResidualKernel(c[:3], x[:3], label[:3], 5)
    with pytest.raises(ValueError, match="119 answers"):
        ResidualKernel(c[:-1], x, label, 5)


def test_columns_of_both_pools() -> None:
    assert WRITTEN_COLUMNS == ("written_excess", "written_z", "written_excess_test", "written_z_test")


def test_it_costs_less_than_a_second_of_the_processor() -> None:
    own, *pools = world(0, n=module.MOST_OWN)
    parts = [own, *(tuple(t[: module.MOST_OF_A_POOL] for t in pool) for pool in pools)]
    wide = [(c, torch.randn(len(c), 784), label) for c, _, label in parts]
    start = time.process_time()
    told = found(wide)
    assert time.process_time() - start < 2  # 0.1 s where this was written
    assert all(math.isfinite(value) for values in told for value in values)
