"""Imitates the victim, and draws a defense's noise on the imitation's vectors as often as one likes.

An attacker that knows how a defense draws its noise needs no query to see it: a small network that has
learned the answers to its images averages the noise out of them, and the defense's own code puts new noise on
the network's vectors. A regression on many such releases of each image learns what the image is on average,
given a release, from a sample as large as one likes.

Only a defense that can be run by whoever knows its settings is simulated: it draws random numbers, reads no
image, and is fitted to nothing. The attacker's secret and images are its own.

Shape suffixes: N samples, M landmarks, K classes, F features, P principal components, L penalties, CHW image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.attacks.kernel_regression import LandmarkRegression
from mipoison.attacks.kernel_ridge import Kernel, whitening
from mipoison.attacks.selection import Reading
from mipoison.defenses import DEFENSES
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.pipeline import protect_chunks
from mipoison.models.classifier import confidence_vectors
from mipoison.protocols import ThreatModel
from mipoison.simplex import label_of
from mipoison.training import seeded, train

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Ridge penalties that are tried, where the kernel of an image with itself is 1."""
LANDMARKS = 400
"""Most vectors whose kernels span a regression."""
STEPS, BATCH, LEARNING_RATE = 200, 64, 5e-3
"""Training of an imitation."""
WIDTH, HIDDEN, SIDE = 8, 64, 16
"""Its channels, its hidden units, and the pixels a side that it sees of an image."""
CHUNK = 4096
"""Vectors whose kernels are computed at once: bounds the memory."""
CPU = torch.device("cpu")

Simulate = Callable[[Tensor], Tensor]
"""Clean vectors (N, K) to released vectors of images that differ from all others."""


def simulator(known: ThreatModel, rng: torch.Generator) -> Simulate | None:
    """The publicly known defense under a secret of the attacker's own; None if it draws nothing, or if
    knowing its settings is not enough to run it.

    Args:
        rng: draws secrets, and the names under which vectors are released.
    """
    if known.defense not in DEFENSES:
        return None
    defense: Any = DEFENSES[known.defense].from_flat(known.settings).make()
    needs_more = (
        defense.reads_image or defense.asks_again or defense.couples or defense.retrains
        or type(defense).fit is not BaseDefense.fit
    )  # fmt: skip
    if needs_more or not defense.draws:
        return None

    def released(c_NK: Tensor) -> Tensor:
        secret = int(torch.randint(0, 2**62, (1,), generator=rng)).to_bytes(8, "big")
        # The defense reads no image; what keys its noise are images of 16 random pixels of 8 bits.
        names = torch.randint(0, 256, (len(c_NK), 1, 4, 4), generator=rng).float() / 255
        return torch.cat(list(protect_chunks(defense, c_NK, names, secret=secret, device=CPU).values()))

    return released


def imitation(x_NCHW: Tensor, c_NK: Tensor, rng: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A small convolutional network that has learned the answers: images to vectors (N, K).

    Cross-entropy with the answers as soft labels is least at their mean, given the image. Dropout keeps the
    network from learning the noise of single answers.

    Args:
        x_NCHW: images, float32, at least 2. c_NK: the answers to them. rng: weights, batches and dropout.
    """
    flat = 2 * WIDTH * (SIDE // 4) ** 2
    with seeded(rng, CPU):
        net = nn.Sequential(
            nn.AdaptiveAvgPool2d(SIDE) if x_NCHW.shape[-2:] != (SIDE, SIDE) else nn.Identity(),
            nn.Conv2d(x_NCHW.shape[1], WIDTH, 5, stride=2, padding=2), nn.BatchNorm2d(WIDTH), nn.ReLU(),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1), nn.BatchNorm2d(2 * WIDTH), nn.ReLU(),
            nn.Flatten(), nn.Linear(flat, HIDDEN), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(HIDDEN, c_NK.shape[1]),
        )  # fmt: skip
    train(net, x_NCHW, c_NK, F.cross_entropy, steps=STEPS, batch=BATCH, lr=LEARNING_RATE, rng=rng)
    return functools.partial(confidence_vectors, net)


class ManyPairs(LandmarkRegression):
    """Kernel ridge regressions of all penalties on many pairs, through the normal equations of landmarks.

    The weights w minimise ``|y - G w|^2 + penalty w' K w``, with the kernel G between vectors and landmarks
    and K of the landmarks.

    Args:
        c_NK: vectors. rest_NP: what is to be predicted. rng: draws the landmarks.
    """

    def __init__(
        self, standardise: Reading, kernel: Kernel, c_NK: Tensor, rest_NP: Tensor, rng: torch.Generator
    ) -> None:
        self.standardise, self.kernel = standardise, kernel
        z_NF, label_N = standardise(c_NK), label_of(c_NK)
        some = torch.randperm(len(z_NF), generator=rng)[:LANDMARKS]
        self.z_MF, self.label_M = z_NF[some], label_N[some]
        white_MR = whitening(kernel(self.z_MF, self.label_M, self.z_MF, self.label_M))
        square_MM = torch.zeros(len(some), len(some), dtype=torch.float64)
        part_MP = torch.zeros(len(some), rest_NP.shape[1], dtype=torch.float64)
        # Products in single precision take half of the time; the penalties are far above their rounding.
        z_NF, rest_NP, near_MF = z_NF.float(), rest_NP.float(), self.z_MF.float()
        for rows in torch.arange(len(z_NF)).split(CHUNK):
            gram_nM = kernel(z_NF[rows], label_N[rows], near_MF, self.label_M)
            square_MM += gram_nM.mT @ gram_nM
            part_MP += gram_nM.mT @ rest_NP[rows]
        self.size_R, turn_RR = torch.linalg.eigh(white_MR.mT @ square_MM @ white_MR)
        self.to_landmarks_MR = white_MR @ turn_RR
        self.part_RP = self.to_landmarks_MR.mT @ part_MP

    def weights(self, penalty: float) -> Tensor:
        return self.to_landmarks_MR @ (self.part_RP / (self.size_R.clamp_min(0) + penalty)[:, None])


def releases(
    simulate: Simulate, imitations: list[Callable[[Tensor], Tensor]], x_NCHW: Tensor, rows: int
) -> tuple[Tensor, Tensor]:
    """Simulated releases (R, K) of images, and the index (R,) of the image of each.

    Every imitation's vectors are released equally often, at least once, so that R is about ``rows``.
    """
    x_NCHW = x_NCHW[:rows]
    often = max(1, rows // (len(x_NCHW) * len(imitations)))
    clean_NK = torch.cat([answers(x_NCHW) for answers in imitations]).repeat(often, 1)
    return simulate(clean_NK), torch.arange(len(x_NCHW)).repeat(often * len(imitations))
