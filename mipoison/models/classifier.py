"""Classifiers: the victim of the paper, and an evaluator of another architecture.

Shape suffixes: N samples, K classes, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mipoison.config import Config, Plain
from mipoison.models.augmentation import AUGMENTATIONS
from mipoison.training import MOST_AVERAGED

_POOLINGS = {16: 2, 32: 3, 64: 4}
"""Number of blocks, each of which halves the image, by height and width in pixels."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Config):
    """Architecture and training of a classifier.

    Attributes:
        architecture: ``victim`` (Conv3x3-BatchNorm-MaxPool-ReLU blocks and two linear layers with dropout, as
            the paper's) or ``evaluator`` (strided 5x5 convolutions with GroupNorm and global pooling) or
            ``place-evaluator`` (the same with BatchNorm, dropout and no pooling, for images that show
            everything at the same place, as faces do).
        width: channels of the first block (ndf).
        hidden: units between the victim's two linear layers.
        steps: Adam steps. batch: images a step. lr: peak learning rate. average: share of the last
            steps whose weights are averaged. See :func:`mipoison.training.train`.
        augment: a name of AUGMENTATIONS: how each batch of images is changed at random.
    """

    BEFORE: ClassVar[Mapping[str, Plain | None]] = {
        "augment": "none",
        "average": 0.0,
    }

    architecture: Literal["victim", "evaluator", "place-evaluator"] = "victim"
    width: int = 32
    hidden: int = 128
    steps: int = 600
    batch: int = 128
    lr: float = 1e-3
    augment: Literal["none", "faces"] = "none"
    average: float = 0.0

    def validate(self) -> None:
        for name in ("width", "hidden", "steps", "batch"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("lr", self.lr > 0, "above 0")
        self.require("average", 0 <= self.average <= MOST_AVERAGED, f"in [0, {MOST_AVERAGED}]")

    def make(self, image_shape: tuple[int, int, int], n_classes: int) -> nn.Module:
        """An untrained network from images (N, C, H, W) in [0, 1] to logits (N, K)."""
        network = VictimNet if self.architecture == "victim" else EvaluatorNet
        return network(self, image_shape, n_classes)

    def training(self) -> dict[str, Any]:
        """The training as keyword arguments of :func:`mipoison.training.train`."""
        return {
            **{name: getattr(self, name) for name in ("steps", "batch", "lr", "average")},
            "augment": AUGMENTATIONS[self.augment],
        }


def blocks_for(size: int, table: dict[int, int]) -> int:
    """Number of blocks for square images of ``size`` pixels a side.

    Raises:
        ValueError: the size is not in the table; the message lists those that are.
    """
    if size not in table:
        raise ValueError(f"image size {size} is not supported; choose from: {', '.join(map(str, table))}")
    return table[size]


class VictimNet(nn.Module):
    """The paper's classifier (Zhou et al., VII-A2): Conv-BatchNorm-MaxPool-ReLU blocks and two linear layers.

    It has two blocks for 16x16 pixels, three for 32x32 and four for 64x64.
    """

    def __init__(self, config: ClassifierConfig, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        channels, size, _ = image_shape
        layers: list[nn.Module] = []
        width = config.width
        for _ in range(blocks_for(size, _POOLINGS)):
            layers += [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.MaxPool2d(2),
                nn.ReLU(),
            ]
            channels, width, size = width, 2 * width, size // 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * size * size, config.hidden),
            nn.Dropout(0.5),
            nn.Linear(config.hidden, n_classes),
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(self.features(x_NCHW))


class EvaluatorNet(nn.Module):
    """The evaluator: strided 5x5 convolutions, GroupNorm, SiLU, global average and maximum pooling.

    The ``place-evaluator`` has BatchNorm, and dropout in place of the pooling: its last layer sees at which
    of 4x4 places a feature is. On faces it learns more from few images.
    """

    def __init__(self, config: ClassifierConfig, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        self.pooled = config.architecture == "evaluator"
        channels, size, _ = image_shape
        layers: list[nn.Module] = []
        width = config.width
        for _ in range(blocks_for(size, _POOLINGS)):
            layers += [
                nn.Conv2d(channels, width, 5, stride=2, padding=2),
                nn.GroupNorm(4 if width % 4 == 0 else 1, width) if self.pooled else nn.BatchNorm2d(width),
                nn.SiLU(),
            ]
            channels, width = width, 2 * width
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        kept = channels * (size // 2 ** blocks_for(size, _POOLINGS)) ** 2
        self.head = (
            nn.Linear(2 * channels, n_classes)
            if self.pooled
            else nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(kept, n_classes))
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        f_NCHW = self.features(x_NCHW)
        if not self.pooled:
            return self.head(f_NCHW)
        return self.head(torch.cat([f_NCHW.mean((2, 3)), f_NCHW.amax((2, 3))], 1))


@torch.no_grad()
def confidence_vectors(model: Callable[[Tensor], Tensor], x_NCHW: Tensor, *, batch: int = 128) -> Tensor:
    """Softmax outputs (N, K) of a classifier in eval mode.

    They are computed in chunks of a fixed size: the size affects rounding, so results would otherwise depend
    on how the images are distributed over processes.

    Args:
        model: maps images to float32 logits: a network of this package, or a
            :class:`mipoison.victims.ask.Classifier`.
        x_NCHW: images in [0, 1].
        batch: images in a chunk.
    """
    if isinstance(model, nn.Module):
        model.eval()
    parts = [torch.softmax(model(x_NCHW[i : i + batch]), 1) for i in range(0, len(x_NCHW), batch)]
    if parts:
        return torch.cat(parts)
    return torch.softmax(model(x_NCHW.new_zeros(1, *x_NCHW.shape[1:])), 1)[:0]
