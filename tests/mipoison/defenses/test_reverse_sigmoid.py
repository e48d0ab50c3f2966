"""Reverse sigmoid against its formula in Python, and what it is for: the confident score falls."""

import math

import torch

from mipoison.defenses.reverse_sigmoid import ReverseSigmoid, ReverseSigmoidConfig, reverse_sigmoid
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import pictures, protect, vectors


def test_the_formula() -> None:
    c = vectors(40)
    for beta, gamma in ((0.0, 0.2), (0.3, 0.2), (1.0, 2.0)):
        rows = [
            [p - beta * (1 / (1 + math.exp(-gamma * math.log(p / (1 - p)))) - 0.5) for p in row]
            for row in c.double().tolist()
        ]
        expected = torch.tensor([[v / sum(row) for v in row] for row in rows], dtype=torch.float64)
        y = reverse_sigmoid(c, beta, gamma)
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-12)
        kept = label_of(y) == label_of(c)
        z = protect(ReverseSigmoid(ReverseSigmoidConfig(beta=beta, gamma=gamma)), c, pictures(40))
        torch.testing.assert_close(z[kept].double(), y[kept], rtol=0, atol=2e-7)


def test_confident_scores_fall_and_zeros_rise() -> None:
    c = torch.tensor([[0.98, 0.01, 0.01, 0.0], [1.0, 0, 0, 0]])
    z = protect(ReverseSigmoid(ReverseSigmoidConfig(beta=0.2)), c, pictures(2))
    assert bool((z[:, 0] < c[:, 0]).all())
    assert bool((z[:, 1:] > c[:, 1:]).all())


def test_a_label_that_the_formula_loses_is_kept() -> None:
    c = torch.tensor([[0.46, 0.54, 0.0], [0.505, 0.495, 0.0]])
    y = reverse_sigmoid(c, 1.0, 10.0)
    assert not torch.equal(label_of(y), label_of(c))
    z = protect(ReverseSigmoid(ReverseSigmoidConfig(beta=1.0, gamma=10.0)), c, pictures(2))
    assert torch.equal(label_of(z), label_of(c))
