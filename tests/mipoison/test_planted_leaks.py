"""Twenty planted leaks and twenty clean mechanisms: the stack or the check of hidden channels finds every
leak, and neither is alarmed by a mechanism that tells the label and nothing else.

The scene has scikit-learn's digits, their class as the label, and clean vectors that tell nothing but the
label, so that whatever is found was planted. What is told is ``secret``, one number of each image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from mipoison.attacks.class_mean import ClassMeanConfig
from mipoison.attacks.ensemble import CheapStackConfig
from mipoison.data.splits import make_split
from mipoison.defenses.rounding import apportion
from mipoison.metrics.check_conditions import HIDDEN_CHANNEL_LEVEL
from mipoison.metrics.hidden_channels import hidden_channel_p
from mipoison.protocols import ThreatModel
from mipoison.randomness import QueryRandomness, content_keys, generator
from tests.mipoison.attacks.helpers import Spy

K = 5
OWN, PRIVATE = 300, 300
ALARM = 0.001
"""Level of each test of the stack: forty of them raise no false alarm in 24 of 25 studies."""
Mechanism = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(images, labels, secret in [0, 1]) -> released vectors, float32."""


# ------------------------------------------------------------------------------- what mechanisms are made of


def base(label_N: Tensor, top: float = 0.8) -> Tensor:
    """Vectors that tell the label alone: a constant for each class, with a tail of unequal scores."""
    tail = torch.linspace(1, 2, K - 1)
    c_NK = torch.zeros(len(label_N), K)
    for i, label in enumerate(label_N.tolist()):
        c_NK[i, [k for k in range(K) if k != label]] = (1 - top) * tail / tail.sum()
        c_NK[i, label] = top
    return c_NK


def at(c_NK: Tensor, label_N: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Index of the class ``step`` after the label."""
    return torch.arange(len(c_NK)), (label_N + step) % K


def moved(c_NK: Tensor, label_N: Tensor, amount_N: Tensor, source: int, target: int) -> Tensor:
    """Move an amount from one class to another, counted from the label."""
    c_NK = c_NK.clone()
    c_NK[at(c_NK, label_N, source)] -= amount_N
    c_NK[at(c_NK, label_N, target)] += amount_N
    return c_NK


def draws(x_NCHW: Tensor, width: int, stream: str) -> Tensor:
    """Keyed normal numbers, as a defense draws them."""
    return QueryRandomness(content_keys(x_NCHW, b"secret")).normal(width, stream).float()


def renormalised(c_NK: Tensor) -> Tensor:
    c_NK = c_NK.clamp_min(0)
    return c_NK / c_NK.sum(1, keepdim=True)


def bit(s_N: Tensor) -> Tensor:
    return (s_N > 0.5).float()


# ------------------------------------------------------------------------------------------ twenty leaks

LEAKS: dict[str, Mechanism] = {
    # the label's score, openly
    "label-score-exact": lambda x, y, s: base_with_top(y, 0.6 + 0.3 * s),
    "label-score-third-decimal": lambda x, y, s: base_with_top(y, 0.8 + 0.002 * s),
    "label-score-near-one": lambda x, y, s: base_with_top(y, 1 - 1e-5 * (1 + 9 * s)),
    "label-score-one-bit": lambda x, y, s: base_with_top(y, 0.79 + 0.02 * bit(s)),
    # the tail
    "tail-score": lambda x, y, s: moved(base(y), y, 0.01 * s, 1, 2),
    "tail-score-tiny": lambda x, y, s: tiny_tail(y, 1e-9 * 10 ** (3 * s)),
    "order-of-the-tail": lambda x, y, s: swapped(base(y), y, bit(s)),
    "pattern-of-zeros": lambda x, y, s: zeroed(base(y), y, bit(s)),
    "number-of-zeros": lambda x, y, s: zeros_from_the_end(y, (s * 4).long()),
    "temperature": lambda x, y, s: renormalised(base(y) ** (1 + s)[:, None]),
    # what looks like a defense
    "perturbation-along-the-image": lambda x, y, s: along_the_image(base(y), x),
    "constant-per-image": lambda x, y, s: renormalised(base(y) + 0.05 * s[:, None]),
    "length-of-the-noise": lambda x, y, s: noisy(base(y), x, 0.002 + 0.03 * s),
    "noise-for-half-of-the-images": lambda x, y, s: noisy(base(y), x, 0.03 * bit(s)),
    "rounding-that-looks-first": lambda x, y, s: steps_by(y, bit(s)),
    "tail-noise-with-exact-top": lambda x, y, s: tail_noisy(base_with_top(y, 0.6 + 0.3 * s), x, y),
    # where nobody looks
    "low-order-digits": lambda x, y, s: moved(base(y), y, 1e-6 * (10 * s).floor(), 1, 2),
    "sign-of-zero": lambda x, y, s: signed_zero(y, bit(s)),
    "sum-off-by-a-pixel": lambda x, y, s: summed(base(y), y, 1e-6 * s),
    "order-of-ties": lambda x, y, s: tied_up_to_rounding(y, bit(s)),
}


def base_with_top(label_N: Tensor, top_N: Tensor) -> Tensor:
    c_NK = base(label_N).double()
    c_NK[at(c_NK, label_N, 0)] = 0.0
    c_NK = c_NK / c_NK.sum(1, keepdim=True) * (1 - top_N.double())[:, None]
    c_NK[at(c_NK, label_N, 0)] = top_N.double()
    return c_NK.float()


def tiny_tail(label_N: Tensor, score_N: Tensor) -> Tensor:
    c_NK = torch.nn.functional.one_hot(label_N, K).float()
    c_NK[at(c_NK, label_N, 3)] = score_N
    return c_NK


def swapped(c_NK: Tensor, label_N: Tensor, bit_N: Tensor) -> Tensor:
    one, two = at(c_NK, label_N, 1), at(c_NK, label_N, 4)
    a, b, out = c_NK[one], c_NK[two], c_NK.clone()
    out[one], out[two] = torch.where(bit_N > 0, b, a), torch.where(bit_N > 0, a, b)
    return out


def zeroed(c_NK: Tensor, label_N: Tensor, bit_N: Tensor) -> Tensor:
    step = torch.where(bit_N > 0, 2, 3)
    out = c_NK.clone()
    out[torch.arange(len(c_NK)), (label_N + step) % K] = 0
    return renormalised(out)


def zeros_from_the_end(label_N: Tensor, count_N: Tensor) -> Tensor:
    out = base(label_N)
    for i, count in enumerate(count_N.tolist()):
        for step in range(1, 1 + count):
            out[i, (label_N[i] + step) % K] = 0
    return renormalised(out)


def along_the_image(c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    picture = torch.randn(x_NCHW[0].numel(), K, generator=generator(5, "fixed directions"))
    d_NK = (x_NCHW.flatten(1) - 0.5) @ picture
    d_NK = d_NK - d_NK.mean(1, keepdim=True)
    return renormalised(c_NK + 0.015 * d_NK / d_NK.norm(dim=1, keepdim=True))


def noisy(c_NK: Tensor, x_NCHW: Tensor, length: Tensor | float) -> Tensor:
    d_NK = draws(x_NCHW, K, "noise")
    d_NK = d_NK - d_NK.mean(1, keepdim=True)
    length_N1 = torch.as_tensor(length).expand(len(c_NK))[:, None]
    return renormalised(c_NK + length_N1 * d_NK / d_NK.norm(dim=1, keepdim=True))


def steps_by(label_N: Tensor, bit_N: Tensor) -> Tensor:
    coarse, fine = (apportion(base(label_N, 0.83), n).float() for n in (10, 100))
    return torch.where(bit_N[:, None] > 0, fine, coarse)


def tail_noisy(c_NK: Tensor, x_NCHW: Tensor, label_N: Tensor) -> Tensor:
    top_N = c_NK[at(c_NK, label_N, 0)]
    out = (c_NK + 0.01 * draws(x_NCHW, K, "tail")).clamp_min(0)
    out[at(out, label_N, 0)] = 0
    out = out / out.sum(1, keepdim=True) * (1 - top_N)[:, None]
    out[at(out, label_N, 0)] = top_N
    return out


def signed_zero(label_N: Tensor, bit_N: Tensor) -> Tensor:
    c_NK = torch.nn.functional.one_hot(label_N, K).float()
    c_NK[at(c_NK, label_N, 1)] = torch.where(bit_N > 0, -0.0, 0.0)
    return c_NK


def summed(c_NK: Tensor, label_N: Tensor, amount_N: Tensor) -> Tensor:
    out = c_NK.clone()
    out[at(out, label_N, 1)] += amount_N
    return out


def tied_up_to_rounding(label_N: Tensor, bit_N: Tensor) -> Tensor:
    c_NK = torch.full((len(label_N), K), 0.2 / (K - 1))
    c_NK[at(c_NK, label_N, 0)] = 0.8
    step = torch.where(bit_N > 0, 2, 3)
    place = torch.arange(len(c_NK)), (label_N + step) % K
    c_NK[place] = torch.nextafter(c_NK[place], torch.ones(()))
    return c_NK


# ------------------------------------------------------------------------------ twenty clean mechanisms

CLEAN: dict[str, Mechanism] = {
    "one-hot": lambda x, y, s: torch.nn.functional.one_hot(y, K).float(),
    "constant-per-class": lambda x, y, s: base(y),
    "constant-per-class-nearly-sure": lambda x, y, s: base(y, 0.99999),
    "uniform-tail": lambda x, y, s: base_with_top(y, torch.full_like(s, 0.8)) * 0 + uniform_tail(y),
    "one-third-in-single-precision": lambda x, y, s: thirds(y),
    "sums-off-by-class": lambda x, y, s: base(y) * (1 + 1e-6 * y)[:, None],
    "negative-zeros-everywhere": lambda x, y, s: torch.where(uniform_tail(y) < 0.5, -0.0, 1.0),
    "keyed-noise-small": lambda x, y, s: noisy(base(y), x, 0.001),
    "keyed-noise-large": lambda x, y, s: noisy(base(y), x, 0.3),
    "keyed-gaussian-noise": lambda x, y, s: renormalised(base(y) + 0.01 * draws(x, K, "gaussian")),
    "noise-of-random-length": lambda x, y, s: noisy(base(y), x, 0.05 * draws(x, 1, "length").abs()[:, 0]),
    "noise-for-random-half": lambda x, y, s: noisy(base(y), x, 0.03 * (draws(x, 1, "coin")[:, 0] > 0)),
    "tail-noise": lambda x, y, s: tail_noisy(base(y), x, y),
    "random-top-score": lambda x, y, s: base_with_top(y, 0.6 + 0.3 * uniform(x, "top")),
    "random-tiny-tail": lambda x, y, s: tiny_tail(y, 1e-9 * 10 ** (3 * uniform(x, "tiny"))),
    "random-order-of-the-tail": lambda x, y, s: swapped(base(y), y, bit(uniform(x, "order"))),
    "random-zeros": lambda x, y, s: zeroed(base(y), y, bit(uniform(x, "zero"))),
    "random-signs-of-zeros": lambda x, y, s: signed_zero(y, bit(uniform(x, "sign"))),
    "random-low-order-digits": lambda x, y, s: moved(base(y), y, 1e-6 * (10 * uniform(x, "d")).floor(), 1, 2),
    "rounding-that-hides-the-score": lambda x, y, s: apportion(base_with_top(y, 0.78 + 0.04 * s), 5).float(),
}


def uniform_tail(label_N: Tensor) -> Tensor:
    c_NK = torch.full((len(label_N), K), 0.2 / (K - 1))
    c_NK[at(c_NK, label_N, 0)] = 0.8
    return c_NK


def thirds(label_N: Tensor) -> Tensor:
    c_NK = torch.zeros(len(label_N), K)
    for step, score in enumerate((2 / 3, 2 / 9, 1 / 9)):
        c_NK[at(c_NK, label_N, step)] = score
    return c_NK


def uniform(x_NCHW: Tensor, stream: str) -> Tensor:
    return QueryRandomness(content_keys(x_NCHW, b"secret")).uniform(1, stream)[:, 0].float()


# ----------------------------------------------------------------------------------------------- the study


class Scene:
    """Digits, their classes, and the secret: how much an image has of its class's main variation."""

    def __init__(self) -> None:
        split = make_split("digits", auxiliary="same", seed=0)
        x = torch.cat([split.attack_train.x_NCHW, split.private_train.x_NCHW])
        y = torch.cat([split.attack_train.y_N, split.private_train.y_N])
        order = torch.randperm(len(x), generator=generator(0, "planted"))[: OWN + PRIVATE]
        self.x, self.y, self.s = x[order], y[order], torch.zeros(OWN + PRIVATE)
        for label in range(K):
            rows = (self.y == label).nonzero()[:, 0]
            flat = self.x[rows].flatten(1)
            score = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)[0][:, 0]
            self.s[rows] = score.argsort().argsort() / (len(rows) - 1)  # ranks: uniform in [0, 1]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def gain_p(scene: Scene, c_NK: Tensor) -> float:
    """p value of "the stack's error is no less than the class mean's", over private images."""
    errors = []
    for config in (ClassMeanConfig(), CheapStackConfig(folds=3)):
        attack: Any = config.make()
        known = ThreatModel(None, {}, tuple(scene.x.shape[1:]))  # type: ignore[arg-type]
        oracle = Spy(lambda x: c_NK[:OWN].clone(), K)
        attack.fit(oracle, scene.x[:OWN], known=known, rng=generator(0, "stack"))
        errors.append((attack.reconstruct(c_NK[OWN:]) - scene.x[OWN:]).square().flatten(1).mean(1).numpy())
    gain_N = errors[0].astype(float) - errors[1]
    spread = gain_N.std(ddof=1) / np.sqrt(len(gain_N))
    return float(norm.sf(gain_N.mean() / spread)) if spread > 0 else 1.0


def alarms(scene: Scene, mechanism: Mechanism) -> set[str]:
    c_NK = mechanism(scene.x, scene.y, scene.s)
    assert c_NK.dtype == torch.float32
    found = set()
    if gain_p(scene, c_NK) < ALARM:
        found.add("stack")
    p = hidden_channel_p(c_NK[OWN:], scene.x[OWN:], rng=generator(0, "hidden channel"))
    if p is not None and p <= HIDDEN_CHANNEL_LEVEL:
        found.add("check")
    return found


def cases(mechanisms: dict[str, Mechanism], always: tuple[str, ...]) -> list[Any]:
    return [pytest.param(n, marks=() if n in always else pytest.mark.slow) for n in mechanisms]


HIDDEN = {"low-order-digits", "sign-of-zero", "sum-off-by-a-pixel", "order-of-ties"}
"""Leaks that no regressor needs to find; the check has to."""


def test_there_are_twenty_of_each() -> None:
    assert len(LEAKS) == len(CLEAN) == 20
    assert set(LEAKS) >= HIDDEN


@pytest.mark.parametrize(
    "name", cases(LEAKS, ("label-score-exact", "order-of-the-tail", "tail-noise-with-exact-top", *HIDDEN))
)
def test_a_planted_leak_is_found(name: str, scene: Scene) -> None:
    assert ("check" if name in HIDDEN else "stack") in alarms(scene, LEAKS[name])


@pytest.mark.parametrize(
    "name", cases(CLEAN, ("one-hot", "keyed-noise-large", "tail-noise", "random-low-order-digits"))
)
def test_a_clean_mechanism_raises_no_alarm(name: str, scene: Scene) -> None:
    assert alarms(scene, CLEAN[name]) == set()
