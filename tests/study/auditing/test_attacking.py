"""Attackers on kept answers: the scores of a planted leak are read, one-hot vectors give the class mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from audited_pools import pool

from study.auditing.attacking import (
    CHEAP,
    Pool,
    are_logits,
    as_scores,
    attacked,
    half_gains,
    mixtures_within,
    one_hot,
)


def test_scores_leak_and_labels_are_the_floor() -> None:
    own, test = pool(120, 0), pool(60, 1)
    found = attacked(own, {"test": test}, seed=0, attackers=CHEAP)
    floor = found.labels["test"]["class-mean"].mean()
    assert found.scores["test"]["kernel"].mean() < 0.8 * floor
    label_N = own.c_NK.argmax(1)
    mean = torch.stack([own.x_NCHW[label_N == k].mean(0) for k in range(3)])
    by_hand = (mean[test.c_NK.argmax(1)] - test.x_NCHW).square().mean((1, 2, 3))
    assert np.allclose(found.scores["test"]["class-mean"], by_hand, atol=1e-6)
    assert np.allclose(found.labels["test"]["class-mean"], by_hand, atol=1e-6)
    assert set(found.labels["test"]) == set(CHEAP)


def test_one_hot_answers_leak_nothing() -> None:
    own, test = (Pool(p.x_NCHW, one_hot(p.c_NK)) for p in (pool(120, 0), pool(60, 1)))
    found = attacked(own, {"test": test}, seed=0, attackers=CHEAP)
    for name in CHEAP:
        assert np.allclose(found.scores["test"][name], found.labels["test"][name])


def test_logits_become_scores() -> None:
    logits = torch.tensor([[3.0, -1.0, 0.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    assert are_logits(logits)
    assert torch.allclose(as_scores(logits, True), torch.softmax(logits, 1).float())
    assert not are_logits(logits.abs())
    assert torch.equal(as_scores(logits.abs()), logits.abs().float())


def test_one_odd_answer_does_not_change_the_reading() -> None:
    c_NK = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(4), 50))
    others = torch.arange(50) != 7
    for odd in (-1e-9, -0.01, -3.0):
        changed = c_NK.clone()
        changed[7, 2] = odd
        assert not are_logits(changed)
        read = as_scores(changed)
        assert torch.equal(read[others], c_NK[others].float())
        assert float(read[7, 2]) == (0 if odd > -1e-6 else np.float32(odd))
    assert are_logits(c_NK.log())


def test_halves_of_its_images() -> None:
    found = half_gains(pool(80, 0), {"test": pool(40, 1)}, "ridge", {"test": 0.01}, seed=0, splits=3)
    assert found["test"].shape == (3, 2)
    assert len(np.unique(found["test"])) == 6
    again = half_gains(pool(80, 0), {"test": pool(40, 1)}, "ridge", {"test": 0.01}, seed=0, splits=3)
    assert np.array_equal(found["test"], again["test"])


@pytest.mark.parametrize(
    ("left", "public"), [(39, 300), (40, 300), (299, 300), (1200, 300), (9999, 300), (60, 20)]
)
def test_mixtures_stay_within_the_budget(left: int, public: int) -> None:
    config = mixtures_within(left, public)
    if left < 40:
        assert config is None
    else:
        assert config is not None
        assert config.each * min(config.mixed, public) <= left
