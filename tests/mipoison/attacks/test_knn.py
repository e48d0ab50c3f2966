"""The nearest-neighbour attacker against scikit-learn and results computed by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mipoison.attacks.feature_sets import FeatureSet
from mipoison.attacks.knn import KNN, NEIGHBOURS, KNNConfig, distances, neighbour_weights
from mipoison.attacks.selection import KINDS, folds, score_features
from mipoison.config import ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator

SHAPE = (1, 4, 4)


class Fixed:
    """An oracle that gives these answers, whatever is asked."""

    def __init__(self, c_NK: Tensor) -> None:
        self.c_NK, self.n_classes, self.queries = c_NK, c_NK.shape[1], 0

    def query(self, x_NCHW: Tensor) -> Tensor:
        self.queries += len(x_NCHW)
        return self.c_NK.clone()


def vectors(n: int, seed: int = 0) -> Tensor:
    return torch.softmax(2 * torch.randn(n, 5, generator=generator(seed, "c")), 1)


def images(c_NK: Tensor, noise: float, seed: int = 0) -> Tensor:
    """Brightness follows the first score; the rest is noise."""
    draw = torch.randn(len(c_NK), *SHAPE, generator=generator(seed, "x"))
    return (c_NK[:, 0, None, None, None] + noise * draw).clamp(0, 1)


def fit(config: KNNConfig, c_NK: Tensor, x_NCHW: Tensor, seed: int = 0) -> KNN:
    attack = config.make()
    attack.fit(Fixed(c_NK), x_NCHW, known=ThreatModel(None, {}, SHAPE), rng=generator(seed))
    return attack


@pytest.mark.parametrize("inputs", KINDS)
def test_a_whole_fit_is_the_mean_of_scikit_learn_s_folds(inputs: Any) -> None:
    c, private = vectors(90), vectors(20, seed=1)
    x = images(c, 0.1)
    attack = fit(KNNConfig(inputs=inputs, folds=3), c, x)
    scaler = StandardScaler().fit(score_features(c, inputs).numpy())
    z, pixels = scaler.transform(score_features(c, inputs).numpy()), x.flatten(1).numpy()
    fold = folds(90, 3, generator(0)).numpy()
    errors: list[float] = []
    for k in NEIGHBOURS:
        error = 0.0
        for f in range(3):
            model = KNeighborsRegressor(k, algorithm="brute").fit(z[fold != f], pixels[fold != f])
            error += ((model.predict(z[fold == f]) - pixels[fold == f]) ** 2).sum()
        errors.append(error)
    assert attack.k == NEIGHBOURS[int(np.argmin(errors))]
    # Clipped as the attacker's features are: nothing is known beyond what its own answers span.
    raw = score_features(private, inputs).numpy()
    own = score_features(c, inputs).numpy()
    asked = scaler.transform(raw.clip(own.min(0), own.max(0)))
    expected = np.mean(
        [
            KNeighborsRegressor(attack.k, algorithm="brute")
            .fit(z[fold != f], pixels[fold != f])
            .predict(asked)
            for f in range(3)
        ],
        0,
    )
    np.testing.assert_allclose(attack.reconstruct(private).flatten(1).numpy(), expected, atol=1e-5)


def test_k_grows_with_the_noise() -> None:
    c = vectors(200)
    assert (
        fit(KNNConfig(inputs="raw"), c, images(c, 0.0)).k < fit(KNNConfig(inputs="raw"), c, images(c, 1.0)).k
    )


def test_ties_count_in_full_and_rows_sum_to_one() -> None:
    d = torch.tensor([[0.0, 1.0, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0], [4.0, 3.0, 2.0, 1.0]])
    third = 1 / 3
    torch.testing.assert_close(
        neighbour_weights(d, 2),
        torch.tensor([[third, third, third, 0.0], [0.25] * 4, [0.0, 0.0, 0.5, 0.5]]),
    )
    torch.testing.assert_close(neighbour_weights(d, 99), torch.full((3, 4), 0.25))


def test_under_label_only_it_gives_class_means() -> None:
    """All vectors of a class are at the same distance, so all of them count, whatever k is."""
    label = torch.arange(60) % 3
    c = torch.eye(3)[label]
    x = (label[:, None, None, None] / 3 + 0.1 * torch.rand(60, *SHAPE, generator=generator(0))).clamp(0, 1)
    attack = fit(KNNConfig(folds=2), c, x)
    out = attack.reconstruct(torch.eye(3))
    fold = folds(60, 2, generator(0))
    for k in range(3):
        expected = torch.stack([x[(label == k) & (fold != f)].mean(0) for f in range(2)]).mean(0)
        torch.testing.assert_close(out[k], expected)


def test_with_a_feature_set_neighbours_have_the_same_label() -> None:
    """Two labels whose vectors have the same log-odds."""
    label = torch.arange(80) % 2
    top = 0.6 + 0.3 * torch.rand(80, generator=generator(0))
    c = torch.stack([torch.where(label == k, top, (1 - top) / 2) for k in range(2)] + [(1 - top) / 2], 1)
    x = 0.2 + 0.5 * label[:, None, None, None] + 0.2 * torch.rand(80, *SHAPE, generator=generator(1))
    attack = fit(KNNConfig(), c, x)
    assert isinstance(attack.standardise.kind, FeatureSet)
    out = attack.reconstruct(c).flatten(1).mean(1)
    assert bool((out[label == 0] < 0.45).all())
    assert bool((out[label == 1] > 0.65).all())


def test_equal_vectors_are_at_distance_zero() -> None:
    z = 50 + torch.randn(40, 6, generator=generator(0), dtype=torch.float64)
    d = distances(z, z)
    assert float(d.diagonal().abs().max()) == 0
    torch.testing.assert_close(d, (z[:, None] - z[None]).square().sum(2).sqrt())


def test_bounds() -> None:
    for value in (1, 21):
        with pytest.raises(ConfigError, match="folds"):
            KNNConfig(folds=value)
