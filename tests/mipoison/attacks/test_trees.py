"""Trees: their features by hand, the factor against a grid, and steps that a line cannot follow."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.attacks.trees import Trees, TreesConfig, best_factor, tree_features
from mipoison.config import ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator

SHAPE = (1, 4, 4)


class Fixed:
    """An oracle that gives these answers, whatever is asked."""

    def __init__(self, c_NK: Tensor) -> None:
        self.c_NK, self.n_classes, self.queries = c_NK, c_NK.shape[1], 0

    def query(self, x_NCHW: Tensor) -> Tensor:
        return self.c_NK.clone()


def fit(c: Tensor, x: Tensor, **changes: int) -> Trees:
    attack = TreesConfig(**changes).make()
    attack.fit(Fixed(c), x, known=ThreatModel(None, {}, SHAPE), rng=generator(0))
    return attack


def steps(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Brightness is high in a narrow range of the label's score."""
    rng = generator(seed, "steps")
    label, top = torch.arange(n) % 3, 0.5 + 0.5 * torch.rand(n, generator=rng)
    c = ((1 - top) / 2)[:, None].expand(-1, 3).clone().scatter(1, label[:, None], top[:, None])
    b = 0.3 + 0.1 * label + 0.3 * ((top > 0.7) & (top < 0.8)) + 0.02 * torch.randn(n, generator=rng)
    return c, b.clamp(0, 1)[:, None, None, None].expand(-1, *SHAPE).contiguous()


def test_features_by_hand() -> None:
    found = tree_features(torch.tensor([[0.2, 0.7, 0.1]]))[0]
    log = np.log([0.2, 0.7, 0.1])
    expected = [
        math.log(0.7 / 0.3), *log, *(log - log.mean()), 1, 0, 2, math.log(3.5), math.log(2), 0, 1, 0
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_follows_steps() -> None:
    attack = fit(*steps(300, 0))
    c, x = steps(150, 1)
    mean = torch.stack([x[c.argmax(1) == k].mean(0) for k in range(3)])[c.argmax(1)]
    assert float((attack.reconstruct(c) - x).square().mean()) < 0.25 * float((mean - x).square().mean())


def test_where_scores_say_nothing_it_answers_with_the_mean_of_the_label() -> None:
    c, _ = steps(150, 0)
    x = torch.rand(150, *SHAPE, generator=generator(5))
    mean = torch.stack([x[c.argmax(1) == k].mean(0) for k in range(3)])[c.argmax(1)]
    assert float((fit(c, x).reconstruct(c) - mean).square().mean()) < 0.02 * float(x.var())


def test_more_images_than_it_takes() -> None:
    attack = fit(*steps(300, 0), most=50)
    assert attack.forest is not None
    assert attack.forest.estimators_[0].tree_.n_node_samples[0] <= 50
    assert len(attack.parts.rest_NP) == 300


def test_the_factor_is_the_best_of_a_grid() -> None:
    rng = np.random.default_rng(0)
    rest = rng.normal(size=(50, 3))
    for found in (0.4 * rest + rng.normal(size=rest.shape), rest * 0.5, -rest, 0 * rest):
        grid = np.linspace(0, 1, 1001)
        best = grid[np.argmin([np.square(a * found - rest).sum() for a in grid])]
        assert best_factor(found, rest) == pytest.approx(best, abs=1e-3)


def test_bounds() -> None:
    for name, value in (("trees", 9), ("most", 19)):
        with pytest.raises(ConfigError, match=name):
            TreesConfig(**{name: value})
