"""The written image against scikit-learn, all permutations, known shares of variance, and worlds without any."""

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
from mipoison.metrics.checks import WRITTEN_Z
from mipoison.metrics.written_image import (
    WRITTEN_COLUMNS,
    LabelMeans,
    ResidualKernel,
    exchange_z,
    label_constants,
    written_image,
)
from mipoison.simplex import label_of

Part = tuple[Tensor, Tensor, Tensor]


def world(seed: int, *, n: int = 120, signal: float = 0.0, tail: float = 0.0, n_labels: int = 5) -> list[Part]:
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


def test_kernel_and_penalty_are_those_of_least_error_left_out_by_hand() -> None:
    """Each image is left out in turn and predicted by scikit-learn, for every kernel and penalty."""
    (c, x, label), _, _ = world(1, n=24, signal=1.0, n_labels=3)
    found = ResidualKernel(c, x, label, 3)
    away = (c.double() - LabelMeans(c.double(), label, 3)(label)).numpy()
    z = away / np.sqrt((away**2).mean(0))
    y = (x.double() - LabelMeans(x.double(), label, 3)(label)).numpy()
    same = label.numpy()[:, None] == label.numpy()
    errors = {}
    for shape, scope in itertools.product(("linear", "gaussian"), ("all", "label")):
        square = ((z[:, None] - z[None]) ** 2).sum(2)
        kernel = z @ z.T if shape == "linear" else np.exp(-square / (2 * z.shape[1]))
        kernel = kernel * same if scope == "label" else kernel
        for penalty in module.PENALTIES:
            total = 0.0
            for i in range(len(y)):
                rest = np.arange(len(y)) != i
                model = KernelRidge(alpha=penalty * np.diag(kernel).mean(), kernel="precomputed")
                model.fit(kernel[rest][:, rest], y[rest])
                total += ((model.predict(kernel[i : i + 1, rest]) - y[i]) ** 2).sum()
            errors[shape, scope, penalty] = total
    *kind, penalty = min(errors, key=lambda key: errors[key])
    assert errors[(*kind, penalty)] < (y**2).sum()
    assert found.kind == tuple(kind)
    square = ((z[:, None] - z[None]) ** 2).sum(2)
    kernel = (z @ z.T if kind[0] == "linear" else np.exp(-square / (2 * z.shape[1]))) * (
        same if kind[1] == "label" else 1
    )
    model = KernelRidge(alpha=penalty * np.diag(kernel).mean(), kernel="precomputed").fit(kernel, y)
    assert found.predict(c, label).numpy() == pytest.approx(model.predict(kernel), abs=1e-9)


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
    z = np.array([found(world(seed, tail=tail))[1] for seed in range(300)])
    assert (z.max(1) > WRITTEN_Z).mean() <= 0.01
    assert abs(z.mean()) < 0.15
    assert z.std() < 1.1


def found(parts: list[Part], n_labels: int = 5) -> tuple[list[float], list[float]]:
    """Excess and z of both private pools."""
    attacker = ResidualKernel(*parts[0], n_labels)
    told = [written_image(attacker, *part) for part in parts[1:]]
    return [t.excess for t in told], [t.z for t in told]


def test_means_that_differ_between_attacker_and_victim_are_no_writing() -> None:
    """Private images are brighter, so that any constant prediction could help; no answer says which is which."""
    for seed in range(40):
        own, *private = world(seed)
        brighter = [(c, x + 0.5, label) for c, x, label in private]
        assert max(found([own, *brighter])[1]) < WRITTEN_Z


def test_a_written_number_explains_its_share_of_the_variance() -> None:
    """Five noisy copies of one of four directions: the best linear reader's share is known."""
    own, *private = world(3, n=500, signal=1.0)
    excess, z = found([own, *private])
    centred = [x - LabelMeans(x, label, 5)(label) for _, x, label in private]
    basis = torch.randn(4, 20, generator=_after_means(3))
    share = float(basis[0].square().sum() / (basis.square().sum() + 20 * 0.09)) * 5 / 6
    assert excess == pytest.approx([share] * 2, abs=0.05)
    assert min(z) > 10
    assert all(bool(torch.isfinite(x).all()) for x in centred)


def _after_means(seed: int) -> torch.Generator:
    """The generator of :func:`world` when it draws the directions."""
    g = torch.Generator().manual_seed(seed)
    torch.randn(5, 20, generator=g)
    return g


def test_answers_that_do_not_vary_say_nothing() -> None:
    """Label-only: one answer per label; and answers that vary by less than their rounding."""
    parts = [(torch.eye(5)[label], x, label) for _, x, label in world(0)]
    assert found(parts) == ([0.0, 0.0], [0.0, 0.0])
    dusty = [(torch.eye(5)[label] + 1e-14 * c.double(), x, label) for c, x, label in world(0, signal=5.0)]
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


def test_constants_have_their_label_and_are_of_picked_vectors() -> None:
    c = torch.tensor([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [0.1, 0.8, 0.1]])
    everything = torch.ones(4, dtype=torch.bool)
    constants = label_constants(c, everything)
    torch.testing.assert_close(constants[0], c[:3].mean(0))
    torch.testing.assert_close(constants[1:], torch.tensor([[0.1, 0.8, 0.1], [0.0, 0.0, 1.0]]))
    picked = label_constants(c, c.amax(1) < 0.6)
    torch.testing.assert_close(picked[0], c[1:3].mean(0))
    torch.testing.assert_close(picked[1], c[3])
    tied = label_constants(torch.full((3, 3), 1 / 3), everything[:3])
    assert label_of(tied).tolist() == [0, 1, 2]


def test_what_is_refused() -> None:
    (c, x, label), _, _ = world(0)
    with pytest.raises(ValueError, match="at least 4 images .* got 3 images"):
        ResidualKernel(c[:3], x[:3], label[:3], 5)
    with pytest.raises(ValueError, match="119 answers"):
        ResidualKernel(c[:-1], x, label, 5)


def test_columns_of_both_pools() -> None:
    assert WRITTEN_COLUMNS == ("written_excess", "written_z", "written_excess_test", "written_z_test")


def test_it_costs_less_than_a_second_of_the_processor() -> None:
    parts = world(0, n=module.MOST)
    wide = [(c, torch.randn(len(c), 784), label) for c, _, label in parts]
    start = time.process_time()
    told = found(wide)
    assert time.process_time() - start < 3  # 0.5 s on the machine this was written on
    assert all(math.isfinite(value) for values in told for value in values)
