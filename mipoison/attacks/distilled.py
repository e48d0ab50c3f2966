"""Distillation attacker: trains a decoder on the answers of a student classifier instead of the API's.

The student is trained on pairs of image and released vector. What the defense adds to each answer averages
out over similar images, because the student is a smooth function of the image.

Shape suffixes: N samples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.attacks.sizes import sized, sizes_of
from mipoison.models.classifier import ClassifierConfig, confidence_vectors
from mipoison.protocols import Oracle, ThreatModel
from mipoison.training import seeded, train


@dataclass(frozen=True, kw_only=True)
class DistilledConfig(DecoderConfig):
    """Trains a student of the API, then a decoder on the student's answers, which no defense
    perturbed one by one.

    The student has the decoder's width, steps and batch.

    Attributes:
        student_lr: peak learning rate of the student, above 0.
    """

    COST: ClassVar[int] = 2

    student_lr: float = 2e-3

    def validate(self) -> None:
        super().validate()
        self.require("student_lr", self.student_lr > 0, "above 0")

    def make(self) -> Distilled:
        return Distilled(sized(self))


class Distilled(Decoder):
    """Trains on the student's vectors; inverts released vectors without changing them."""

    config: DistilledConfig

    def pairs(self, oracle: Oracle, x_NCHW: Tensor, known: ThreatModel) -> tuple[Tensor, Tensor]:
        cfg, sizes = self.config, sizes_of(self.config)
        c_NK = oracle.query(x_NCHW).to(self.device)
        with seeded(self.rng, self.device):
            student = ClassifierConfig(width=sizes.width, hidden=4 * sizes.width).make(
                known.image_shape, oracle.n_classes
            )
        train(
            student.to(self.device),
            x_NCHW.to(self.device),
            c_NK,
            F.cross_entropy,  # soft labels
            steps=sizes.steps,
            batch=sizes.batch,
            lr=cfg.student_lr,
            rng=self.rng,
        )
        return self.apply_view(confidence_vectors(student, x_NCHW.to(self.device)).cpu()), x_NCHW
