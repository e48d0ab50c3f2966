"""The re-querying attacker: what it asks, and that it corrects what a poor first reconstruction misses."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mipoison.attacks.class_mean import ClassMeanConfig
from mipoison.attacks.kernel import KernelConfig
from mipoison.attacks.requery import Linear, RequeryConfig
from mipoison.attacks.ridge import PENALTIES
from mipoison.attacks.selection import folds
from mipoison.randomness import generator
from tests.mipoison.attacks.helpers import Spy, brightness, fit, grey

SMALL = 60


def error(attack: object, seed: int = 5) -> float:
    x = grey(200, seed)
    return float((attack.reconstruct(brightness(x)) - x).square().mean())  # type: ignore[attr-defined]


def data(n: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    rng = generator(0, "linear")
    z = 3 + torch.randn(n, 4, generator=rng, dtype=torch.float64)
    y = z @ torch.randn(4, 3, generator=rng, dtype=torch.float64)
    return z, y + torch.randn(n, 3, generator=rng, dtype=torch.float64), folds(n, 5, rng)


def test_the_regression_is_scikit_learns() -> None:
    z, y, fold_N = data()
    found = Linear(z, y, fold_N)
    scaled = StandardScaler().fit_transform(z.numpy())
    best, errors = None, []
    for penalty in PENALTIES:
        left_out = np.zeros(y.shape)
        for fold in range(5):
            held = (fold_N == fold).numpy()
            model = Ridge(alpha=penalty * (~held).sum()).fit(scaled[~held], y.numpy()[~held])
            left_out[held] = model.predict(scaled[held])
        errors.append(float(np.square(left_out - y.numpy()).sum()))
        if errors[-1] == min(errors):
            best = left_out, penalty
    assert best is not None
    np.testing.assert_allclose(found.left_out_ND.numpy(), best[0], atol=1e-9)
    model = Ridge(alpha=best[1] * len(z)).fit(scaled, y.numpy())
    np.testing.assert_allclose(found(z).numpy(), model.predict(scaled), atol=1e-9)
    assert found.gain == pytest.approx(1 - min(errors) / float(y.square().sum()))


def test_it_asks_its_images_and_then_its_reconstructions() -> None:
    spy, x = Spy(brightness, 2), grey(SMALL)
    attack = fit(RequeryConfig(first="class-mean"), x, spy)
    assert [len(asked) for asked in spy.asked] == [SMALL, SMALL]
    assert torch.equal(spy.asked[0], x)
    assert len(torch.unique(spy.asked[1].flatten(1), dim=0)) <= 2 * len(attack.fits)  # type: ignore[attr-defined]


def test_it_corrects_the_mean_image() -> None:
    """Brightness is written in the scores; the class mean knows two shades of grey."""
    x = grey(SMALL)
    corrected, plain = fit(RequeryConfig(first="class-mean"), x), fit(ClassMeanConfig(), x)
    assert error(corrected) < 0.3 * error(plain)


def test_it_makes_no_good_reconstruction_worse() -> None:
    x = grey(SMALL)
    assert error(fit(RequeryConfig(), x)) < 1.1 * error(fit(KernelConfig(), x))


def test_without_a_gain_there_is_no_correction() -> None:
    """Constant answers: nothing differs from anything."""
    attack = fit(
        RequeryConfig(first="class-mean"), grey(SMALL), Spy(lambda x: torch.full((len(x), 2), 0.5), 2)
    )
    c = torch.tensor([[0.5, 0.5]])
    assert attack.gain <= 0  # type: ignore[attr-defined]
    mean = grey(SMALL).mean(0)
    torch.testing.assert_close(attack.reconstruct(c)[0], mean, atol=1e-3, rtol=0)
