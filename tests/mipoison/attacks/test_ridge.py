"""Ridge and the features shared with other attackers, against scikit-learn and planted structure."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mipoison.attacks.ridge import PENALTIES, Ridge, RidgeConfig, ridge_path
from mipoison.attacks.selection import KINDS, Standardised, folds, score_features
from mipoison.config import ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator

SHAPE = (1, 4, 4)
KNOWN = ThreatModel(None, {}, SHAPE)


def vectors(n: int, k: int = 5, seed: int = 0) -> Tensor:
    return torch.softmax(2 * torch.randn(n, k, generator=generator(seed, "c")), 1)


class Answers:
    """An oracle whose answer to an image is written in its first pixels."""

    def __init__(self, k: int) -> None:
        self.n_classes, self.queries = k, 0

    def query(self, x_NCHW: Tensor) -> Tensor:
        self.queries += len(x_NCHW)
        c_NK = x_NCHW.flatten(1)[:, : self.n_classes]
        return c_NK / c_NK.sum(1, keepdim=True)


def images_of(c_NK: Tensor, noise: float, kind: Literal["log", "raw"], seed: int = 0) -> Tensor:
    """Images whose first K pixels are c and whose others are linear in the features, plus noise."""
    z = (score_features(c_NK, kind) / (50 if kind == "log" else 1)).float()
    rng = generator(seed, "map")
    w = torch.rand(z.shape[1], 16 - c_NK.shape[1], generator=generator(9, "map")) / z.shape[1]
    x = torch.cat([c_NK, z @ w + noise * torch.randn(len(z), w.shape[1], generator=rng)], 1)
    return x.clamp(0, 1).reshape(-1, *SHAPE)


def fit(config: RidgeConfig, x: Tensor, seed: int = 0) -> Ridge:
    attack = config.make()
    attack.fit(Answers(5), x, known=KNOWN, rng=generator(seed))
    return attack


@pytest.mark.parametrize("n", [6, 40, 200])
def test_the_path_is_scikit_learn_s(n: int) -> None:
    """Fewer samples than features, and more."""
    rng = generator(n)
    z, x = (
        3 + torch.randn(n, 10, generator=rng, dtype=torch.float64),
        torch.rand(n, 7, generator=rng, dtype=torch.float64),
    )
    for (w, b), penalty in zip(ridge_path(z, x, PENALTIES), PENALTIES, strict=True):
        reference = SklearnRidge(alpha=n * penalty, solver="svd").fit(z.numpy(), x.numpy())
        np.testing.assert_allclose(w.numpy().T, reference.coef_, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(b.numpy(), reference.intercept_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("inputs", KINDS)
def test_a_whole_fit_is_the_mean_of_scikit_learn_s_folds(inputs: Any) -> None:
    c = vectors(60)
    attack = fit(RidgeConfig(inputs=inputs, folds=3), images_of(c, 0.1, "raw"))
    x = images_of(c, 0.1, "raw")
    answers = Answers(5).query(x)
    scaler = StandardScaler().fit(score_features(answers, inputs).numpy())
    z = scaler.transform(score_features(answers, inputs).numpy())
    fold = folds(60, 3, generator(0)).numpy()
    models: list[Any] = []
    errors = []
    for penalty in PENALTIES:
        parts = [SklearnRidge(alpha=penalty * (fold != k).sum(), solver="svd") for k in range(3)]
        error = 0.0
        for k, part in enumerate(parts):
            part.fit(z[fold != k], x.flatten(1).double().numpy()[fold != k])
            error += ((part.predict(z[fold == k]).clip(0, 1) - x.flatten(1).numpy()[fold == k]) ** 2).sum()
        models.append(parts)
        errors.append(error)
    assert attack.penalty == PENALTIES[int(np.argmin(errors))]
    expected = np.mean([m.predict(z[:20]) for m in models[int(np.argmin(errors))]], 0).clip(0, 1)
    np.testing.assert_allclose(attack.reconstruct(answers[:20]).flatten(1).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["log", "raw"])
def test_it_finds_the_features_that_pixels_are_linear_in(kind: Literal["log", "raw"]) -> None:
    x = images_of(vectors(300), 0.0, kind)
    test = images_of(vectors(100, seed=1), 0.0, kind)
    attack = fit(RidgeConfig(inputs="tuned"), x)
    assert attack.standardise.kind in (kind, "all")  # "all" has both
    error = (attack.reconstruct(Answers(5).query(test)) - test).square().mean()
    assert float(error) < 0.02 * float((x.mean(0) - test).square().mean())


def test_feature_sets_compete_and_each_label_has_its_line() -> None:
    """Pixels follow the log-odds, upwards for one label and downwards for the other."""
    rng = generator(3)
    label, odds = torch.arange(200) % 2, 1 + 3 * torch.rand(200, generator=rng)
    top = torch.sigmoid(odds)
    rest = (1 - top)[:, None] * torch.softmax(torch.randn(200, 4, generator=rng), 1)
    c = torch.stack([torch.cat([r[:k], t[None], r[k:]]) for r, t, k in zip(rest, top, label, strict=True)])
    slope = torch.where(label == 0, 0.1, -0.1)
    x = (0.5 + slope * (odds - 2.5))[:, None, None, None].expand(-1, *SHAPE).contiguous()

    class Written(Answers):
        def query(self, x_NCHW: Tensor) -> Tensor:
            return c

    attack = RidgeConfig().make()
    attack.fit(Written(5), x, known=KNOWN, rng=generator(0))
    assert float((attack.reconstruct(c) - x).square().mean()) < 0.02 * float((x - x.mean(0)).square().mean())
    old = RidgeConfig(inputs="tuned").make()
    old.fit(Written(5), x, known=KNOWN, rng=generator(0))
    assert float((old.reconstruct(c) - x).square().mean()) > float(
        (attack.reconstruct(c) - x).square().mean()
    )


def test_without_scores_it_answers_with_the_mean_of_the_label() -> None:
    c = torch.eye(5)[torch.arange(60) % 5]

    class OneHot(Answers):
        def query(self, x_NCHW: Tensor) -> Tensor:
            return c

    x = torch.rand(60, *SHAPE, generator=generator(0))
    attack = RidgeConfig(folds=2).make()
    attack.fit(OneHot(5), x, known=KNOWN, rng=generator(0))
    fold = folds(60, 2, generator(0))
    for k in range(5):
        means = [x[(torch.arange(60) % 5 == k) & (fold != f)].mean(0) for f in range(2)]
        torch.testing.assert_close(attack.reconstruct(torch.eye(5))[k], torch.stack(means).mean(0))


def test_more_noise_takes_a_stronger_penalty() -> None:
    weak = fit(RidgeConfig(inputs="log"), images_of(vectors(40), 0.0, "log"))
    strong = fit(RidgeConfig(inputs="log"), torch.rand(40, *SHAPE, generator=generator(0)))
    assert weak.penalty < strong.penalty


def test_beyond_its_own_answers_it_does_not_extrapolate() -> None:
    x = images_of(vectors(60), 0.0, "log")
    attack = fit(RidgeConfig(inputs="log"), x)
    c = torch.tensor([[1.0, 0, 0, 0, 0], [1 - 4e-9, 1e-9, 1e-9, 1e-9, 1e-9]])
    out = attack.reconstruct(c)
    assert torch.equal(out[0], out[1])


def test_standardised_features_by_hand() -> None:
    rows = [[0.5, 0.3, 0.2], [0.7, 0.1, 0.2], [0.6, 0.2, 0.2]]
    c = torch.tensor(rows, dtype=torch.float64)
    z = Standardised(c, "raw")(c)
    torch.testing.assert_close(z[:, 0], torch.tensor([-1.5, 1.5, 0.0], dtype=torch.float64) * (2 / 3) ** 0.5)
    assert z[:, 2].tolist() == [0, 0, 0]  # constant
    features = score_features(torch.tensor([[0.25, 0.75]]), "all")
    torch.testing.assert_close(
        features,
        torch.tensor(
            [[50 + np.log(0.25), 50 + np.log(0.75), 0.25, 0.75, 0, 1]],
            dtype=torch.float64,
        ),
    )


def test_folds_are_equal_and_drawn() -> None:
    fold = folds(23, 5, generator(0))
    assert sorted(torch.bincount(fold).tolist()) == [4, 4, 5, 5, 5]
    assert torch.equal(fold, folds(23, 5, generator(0)))
    assert not torch.equal(fold, folds(23, 5, generator(1)))
    assert sorted(folds(3, 5, generator(0)).tolist()) == [0, 1, 2]


def test_records_of_before_keep_their_settings() -> None:
    """Their value was the default, and had the digest of one."""
    assert RidgeConfig.recorded({"folds": 5}) == RidgeConfig(inputs="tuned")
    assert RidgeConfig(inputs="tuned").changed(before=True) == {}
    assert RidgeConfig().digest() != RidgeConfig(inputs="tuned").digest()


def test_bounds() -> None:
    for value in (1, 21):
        with pytest.raises(ConfigError, match="folds"):
            RidgeConfig(folds=value)
