"""Attacks with kept answers: attackers learn from the public images, and reconstruct the private ones.

The attackers are the library's in closed form, with the class mean of the released labels as the floor. None
of them knows the defense. The floor is what the best of three attackers reaches on one-hot vectors of the
released labels, as in a study. Shape suffixes: N images, K classes, A attackers, CHW image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mipoison.attacks import ATTACKS
from mipoison.attacks.mixtures import MixturesConfig
from mipoison.attacks.tuned import RecordedAnswers
from mipoison.config import Config
from mipoison.metrics.leakage import reconstruction_errors
from mipoison.protocols import Attack, Oracle, ThreatModel
from mipoison.randomness import generator
from mipoison.simplex import label_of

Array = NDArray[np.float64]
ATTACKERS = ("class-mean", "ridge", "knn", "kernel", "trees")
CHEAP = ("class-mean", "ridge", "kernel")
"""Those that judge changes of the answers, and one-hot vectors."""
LEAST_MIXTURES = 40
"""With fewer questions left, no mixtures are asked about."""
MOST_EACH = 14
FAR, NEGATIVE, MANY = 0.01, 1e-6, 0.25
"""Logits: the median sum is further from 1, and this share of answers has a number further below 0."""


@dataclass(frozen=True)
class Pool:
    """Private images (or public ones held out) and the answers to them, in one order.

    Attributes:
        x_NCHW: float32, pixels in [0, 1]. c_NK: float32.
    """

    x_NCHW: Tensor
    c_NK: Tensor


@dataclass(frozen=True)
class Errors:
    """Mean squared error of each image, by pool: attacker -> (N,).

    Attributes:
        scores: of the attackers on the answers. labels: of the attackers on one-hot labels.
    """

    scores: Mapping[str, Mapping[str, Array]]
    labels: Mapping[str, Mapping[str, Array]]


def are_logits(c_NK: Tensor) -> bool:
    """Whether answers, all of an audit, are logits: most sums are far from 1, and many have negative numbers.

    A few odd answers decide nothing, so that an endpoint cannot choose the reading with one of them.
    """
    far = float((c_NK.sum(1) - 1).abs().median()) > FAR
    return far and float((c_NK < -NEGATIVE).any(1).double().mean()) >= MANY


def as_scores(c_NK: Tensor, logits: bool = False) -> Tensor:
    """Answers as attackers read them: float32; the softmax of logits, else rounding errors below 0 as 0."""
    if logits:
        return torch.softmax(c_NK, 1).float()
    return torch.where((c_NK < 0) & (c_NK >= -NEGATIVE), 0.0, c_NK).float()


def as_images(images_NHWC: NDArray[np.uint8]) -> Tensor:
    """Images (N, C, H, W), float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2))).float() / 255


def one_hot(c_NK: Tensor) -> Tensor:
    """One-hot vectors of the labels."""
    return F.one_hot(label_of(c_NK), c_NK.shape[1]).to(c_NK)


def fitted(config: Config, oracle: Oracle, x_NCHW: Tensor, seed: int) -> Attack:
    """An attacker that knows nothing of the defense, trained."""
    attack: Attack = config.make()
    shape = (int(x_NCHW.shape[1]), int(x_NCHW.shape[2]), int(x_NCHW.shape[3]))
    known = ThreatModel(None, {}, shape)
    attack.fit(oracle, x_NCHW, known=known, rng=generator(seed, "audit", config.digest()))
    return attack


def errors_on(attack: Attack, pools: Mapping[str, Pool]) -> dict[str, Array]:
    """Pool -> error of each image."""
    return {
        name: reconstruction_errors(attack.reconstruct(pool.c_NK), pool.x_NCHW).double().numpy()
        for name, pool in pools.items()
    }


def attacked(
    own: Pool,
    pools: Mapping[str, Pool],
    *,
    seed: int,
    attackers: tuple[str, ...] = ATTACKERS,
    asking: tuple[MixturesConfig, Oracle] | None = None,
    told: Callable[[str], None] = lambda name: None,
) -> Errors:
    """Errors of all attackers, on the answers and on one-hot labels.

    Args:
        own: the attacker's images. pools: what is reconstructed. seed: of the attackers.
        asking: an attacker that asks more, and whom. told: called with each attacker's name.
    """
    found: dict[str, dict[str, dict[str, Array]]] = {}
    labels = {name: Pool(pool.x_NCHW, one_hot(pool.c_NK)) for name, pool in pools.items()}
    kinds = (
        ("scores", own.c_NK, pools, attackers),
        ("labels", one_hot(own.c_NK), labels, tuple(a for a in CHEAP if a in attackers)),
    )
    for kind, c_NK, targets, names in kinds:
        found[kind] = {}
        for name in names:
            told(name)
            attack = fitted(ATTACKS[name], RecordedAnswers(c_NK), own.x_NCHW, seed)
            found[kind][name] = errors_on(attack, targets)
    if asking is not None:
        told("mixtures")
        attack = fitted(asking[0], RecordedAnswers(own.c_NK, asking[1]), own.x_NCHW, seed)
        found["scores"]["mixtures"] = errors_on(attack, pools)
    by_pool = {
        kind: {pool: {name: errors[pool] for name, errors in of.items()} for pool in pools}
        for kind, of in found.items()
    }
    return Errors(by_pool["scores"], by_pool["labels"])


def mixtures_within(left: int, public: int) -> MixturesConfig | None:
    """The mixing attacker that asks at most ``left`` questions; None if these are too few."""
    if left < LEAST_MIXTURES:
        return None
    each = int(np.clip(left // max(public, 1), 1, MOST_EACH))
    return MixturesConfig(each=each, mixed=max(20, min(public, left // each)), simulated=0)


def half_gains(
    own: Pool, pools: Mapping[str, Pool], attacker: str, floor: Mapping[str, float], *, seed: int, splits: int
) -> dict[str, Array]:
    """Pool -> gains (splits, 2) over the floor of one attacker with disjoint halves of its own images."""
    config = ATTACKS[attacker]
    found: dict[str, list[list[float]]] = {name: [] for name in pools}
    for split in range(splits):
        order = torch.randperm(len(own.x_NCHW), generator=generator(seed, "audit halves", str(split)))
        pair = []
        for half in (order[: len(order) // 2], order[len(order) // 2 :]):
            attack = fitted(config, RecordedAnswers(own.c_NK[half]), own.x_NCHW[half], seed)
            pair.append(errors_on(attack, pools))
        for name in pools:
            found[name].append([1 - float(errors[name].mean()) / floor[name] for errors in pair])
    return {name: np.array(pairs) for name, pairs in found.items()}
