"""The matching attacker: quantiles by hand, powers in closed form, and a planted shift that it undoes."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.attacks.ensemble import CheapStackConfig
from mipoison.attacks.matched import (
    LEAST,
    Matched,
    MatchedConfig,
    log_odds,
    matched_powers,
    matched_quantiles,
    with_log_odds,
)
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from mipoison.simplex import label_of
from tests.mipoison.attacks.helpers import Spy

SHAPE = (1, 16, 16)
KNOWN = ThreatModel(None, {}, SHAPE)


def world(n: int, sharpness: float, seed: int) -> tuple[Tensor, Tensor]:
    """Logits of three classes, times ``sharpness``, and images that show the logits themselves."""
    rng = generator(seed, "world")
    z_NK = torch.randn(n, 3, generator=rng) + 2 * torch.eye(3)[torch.arange(n) % 3]
    pictures = torch.rand(3, 256, generator=generator(7, "pictures"))
    x_ND = 0.5 + 0.05 * z_NK @ (pictures - 0.5) + 0.02 * torch.randn(n, 256, generator=rng)
    return torch.softmax(sharpness * z_NK, 1), x_ND.clamp(0, 1).reshape(-1, *SHAPE)


@functools.cache
def fitted(config: CheapStackConfig) -> Matched:
    """The attacker that learned from 300 pairs; fitted once, since reconstructing changes nothing in it."""
    c_NK, x_NCHW = world(300, 1.0, 0)
    attack: Matched = config.make()
    attack.fit(Spy(lambda x: c_NK.clone(), 3), x_NCHW, known=KNOWN, rng=generator(0, "attack"))
    return attack


def test_quantiles_by_hand() -> None:
    own = np.array([30.0, 10, 20, 40])
    np.testing.assert_allclose(matched_quantiles(np.array([7.0, 1, 3, 2]), own), [40, 10, 30, 20])
    np.testing.assert_allclose(matched_quantiles(np.array([5.0, 5, 5, 9]), own), [20, 20, 20, 40])
    np.testing.assert_allclose(matched_quantiles(np.array([1.0, 2]), own), [15, 35])


def test_values_of_the_same_distribution_stay() -> None:
    own = np.random.default_rng(0).normal(size=400)
    found = matched_quantiles(own, own)
    np.testing.assert_allclose(found, own, atol=1e-12)


def test_a_power_of_two_scores_in_closed_form() -> None:
    c = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    target = torch.tensor([1.0, 2.5], dtype=torch.float64)
    found = with_log_odds(c, target)
    torch.testing.assert_close(found[0, 0], torch.sigmoid(target[0]))
    torch.testing.assert_close(found[1, 1], torch.sigmoid(target[1]))


def test_powers_have_the_odds_and_keep_order_zeros_and_one_hot_rows() -> None:
    c = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.25, 0.25, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0]])
    target = torch.tensor([3.0, 0.5, 2.0], dtype=torch.float64)
    found = with_log_odds(c, target)
    torch.testing.assert_close(log_odds(found, label_of(c))[:2], target[:2], atol=1e-5, rtol=0)
    assert torch.equal(found.argsort(1), c.argsort(1))
    assert float(found[0, 3]) == 0
    assert torch.equal(found[2], c[2])
    torch.testing.assert_close(found.sum(1), torch.ones(3))


def test_odds_out_of_reach_keep_the_label() -> None:
    """A vector of many equal scores has odds of at most 1 to K - 1 at power 0."""
    c = torch.tensor([[0.26, 0.25, 0.25, 0.24]])
    found = with_log_odds(c, torch.tensor([-5.0], dtype=torch.float64))
    assert label_of(found).tolist() == [0]


def test_it_undoes_that_stolen_vectors_are_more_certain() -> None:
    stolen, private = world(240, 2.0, 1)
    attacks = (fitted(MatchedConfig()), fitted(CheapStackConfig()))
    errors = [float((a.reconstruct(stolen) - private).square().mean()) for a in attacks]
    assert errors[0] < 0.95 * errors[1]


def test_it_costs_little_where_there_is_no_shift() -> None:
    stolen, private = world(240, 1.0, 1)
    errors = [
        float((fitted(config).reconstruct(stolen) - private).square().mean())
        for config in (MatchedConfig(), CheapStackConfig())
    ]
    assert errors[0] < 1.1 * errors[1]


def test_too_few_stolen_vectors_of_a_label_stay_as_they_are() -> None:
    stolen, own = world(300, 2.0, 1)[0], world(300, 1.0, 0)[0]
    of_one = stolen[label_of(stolen) == 0]
    assert torch.equal(matched_powers(of_one[: LEAST - 1], own), of_one[: LEAST - 1])
    assert not torch.equal(matched_powers(of_one[:LEAST], own), of_one[:LEAST])
    assert matched_powers(of_one[:0], own).shape == (0, 3)


def test_the_order_of_a_batch_does_not_matter_and_equal_vectors_get_equal_images() -> None:
    """What keeps the attacker within the scope of certificates without noise: no row knows its place."""
    attack = fitted(MatchedConfig())
    stolen = (world(90, 2.0, 1)[0] * 10).round() / 10
    stolen = stolen / stolen.sum(1, keepdim=True)
    order = torch.randperm(90, generator=generator(3))
    torch.testing.assert_close(attack.reconstruct(stolen[order]), attack.reconstruct(stolen)[order])
    distinct, cell_N = torch.unique(stolen, dim=0, return_inverse=True)
    images = attack.reconstruct(stolen)
    assert len(distinct) < 90
    for cell in range(len(distinct)):
        same = images[cell_N == cell]
        torch.testing.assert_close(same, same[:1].expand_as(same), atol=1e-6, rtol=0)


def test_odds_by_hand() -> None:
    odds = log_odds(torch.tensor([[0.8, 0.2, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([0, 0]))
    assert odds.tolist() == pytest.approx([math.log(4), math.inf])
