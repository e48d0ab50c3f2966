"""The kernel attacker reads what no line can follow, and says no more than the scores do."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

import mipoison.attacks.kernel as kernel_module
import mipoison.attacks.kernel_choice as choice_module
from mipoison.attacks.kernel import KernelAttack, KernelConfig, votes
from mipoison.attacks.ridge import RidgeConfig
from mipoison.config import ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator

SHAPE = (1, 4, 4)
KNOWN = ThreatModel("noise", {"budget": 0.01}, SHAPE)


class Fixed:
    """An oracle that gives these answers, whatever is asked."""

    def __init__(self, c_NK: Tensor) -> None:
        self.c_NK, self.n_classes, self.queries = c_NK, c_NK.shape[1], 0

    def query(self, x_NCHW: Tensor) -> Tensor:
        self.queries += len(x_NCHW)
        return self.c_NK.clone()


def wave(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Vectors, and images whose brightness is a wave of their log-odds, around a mean of the label."""
    rng = generator(seed, "wave")
    label, odds = torch.arange(n) % 3, 1 + 6 * torch.rand(n, generator=rng)
    top = torch.sigmoid(odds)
    c = ((1 - top) / 2)[:, None].expand(-1, 3).clone().scatter(1, label[:, None], top[:, None])
    b = 0.3 + 0.15 * label + 0.1 * torch.sin(2 * odds) + 0.02 * torch.randn(n, generator=rng)
    return c, b.clamp(0, 1)[:, None, None, None].expand(-1, *SHAPE).contiguous()


def fit(config: Any, c: Tensor, x: Tensor, seed: int = 0) -> Any:
    attack = config.make()
    attack.fit(Fixed(c), x, known=KNOWN, rng=generator(seed))
    return attack


def excess(attack: Any, seed: int = 1, n: int = 90) -> float:
    """Gain over the mean image of the label, known exactly here but for the wave's mean."""
    c, x = wave(n, seed)
    mean = torch.stack([x[c.argmax(1) == k].mean(0) for k in range(3)])[c.argmax(1)]
    return 1 - float((attack.reconstruct(c) - x).square().mean() / (mean - x).square().mean())


def test_it_reads_what_no_line_can_follow() -> None:
    c, x = wave(150, 0)
    assert excess(fit(KernelConfig(), c, x)) > 0.8
    assert excess(fit(RidgeConfig(), c, x)) < 0.3


def test_where_scores_say_nothing_it_answers_with_the_mean_of_the_label() -> None:
    """Images that do not depend on the scores: no better than the label's mean, and hardly worse."""
    c, _ = wave(150, 0)
    x = torch.rand(150, *SHAPE, generator=generator(5))
    attack = fit(KernelConfig(), c, x)
    mean = torch.stack([x[c.argmax(1) == k].mean(0) for k in range(3)])
    assert float((attack.reconstruct(c) - mean[c.argmax(1)]).square().mean()) < 0.01 * float(x.var())
    one_hot = fit(KernelConfig(), torch.eye(3)[torch.arange(150) % 3], x)
    torch.testing.assert_close(one_hot.reconstruct(c), mean[c.argmax(1)])


@pytest.mark.parametrize("changes", [{"landmarks": 60}, {"judged": 60}])
def test_many_images_take_landmarks_and_judges(
    changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (kernel_module, choice_module):
        monkeypatch.setattr(module, "EXACT", 50)
    c, x = wave(300, 0)
    attack: KernelAttack = fit(KernelConfig(**changes), c, x)
    landmarks = changes.get("landmarks", 300)
    assert all(len(v.z_MF) == landmarks for v in attack.voters)
    assert len(attack.parts.rest_NP) == 300  # all images are regressed
    assert excess(attack) > 0.8


def test_chunks_do_not_change_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    c, x = wave(60, 0)
    attack = fit(KernelConfig(), c, x)
    whole = attack.reconstruct(c)
    monkeypatch.setattr(kernel_module, "CHUNK", 7)
    torch.testing.assert_close(attack.reconstruct(c), whole)


def test_votes_are_the_best_mean() -> None:
    """Against scipy's general optimiser; the useless voter has no vote."""
    rng = generator(2)
    errors = [torch.randn(40, 3, generator=rng, dtype=torch.float64) * s for s in (1.0, 0.7, 0.8, 5.0)]
    found = votes(errors)
    flat = np.stack([e.numpy().ravel() for e in errors])
    best = minimize(
        lambda w: np.square(w @ flat).sum(), np.full(4, 0.25), bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-14},
    )  # fmt: skip
    expected = np.where(best.x < 0.03, 0, best.x)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-4)
    assert found[3] == 0
    np.testing.assert_allclose(votes([torch.zeros(4, 0)] * 2), [0.5, 0.5])


def test_bounds() -> None:
    for name in ("judged", "landmarks"):
        with pytest.raises(ConfigError, match=name):
            KernelConfig(**{name: 19})
