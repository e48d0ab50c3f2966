"""A few synthetic images, with the classifier's answers when the unit was fitted.

A classifier can differ in things that are not in its state dict: a temperature in a plain attribute, a hook,
weights in a closure. Then it has the same digest of weights and other answers. So a unit also keeps answers
to compare with. The images are drawn from a fixed seed: a unit holds no image that anybody gave.

Shape suffixes: N images, K classes, CHW image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.randomness import generator
from mipoison.victims.ask import Classifier
from mipoison.victims.check import answers, rounding, spread
from mipoison.victims.outputs import signs_of_probabilities

IMAGES = 16
"""Images that a unit keeps."""
DRAWN = 64
"""Images that are drawn, of which those are kept that tell most."""
SIDES, CONTRASTS = (2, 4, 8, None), (1.0, 0.5, 2.0)
"""Of the drawn images: side of the random pixels that are enlarged (None: the image's), and contrast."""
PREFIX = "probe."
"""Start of the names of the probe's tensors in a unit's file: ``x``, ``c`` and ``off``."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Images, and how the classifier answered them when the unit was fitted.

    Attributes:
        x_NCHW: images in [0, 1], float32, on the CPU; synthetic, public ones in units of earlier versions.
        c_NK: the classifier's confidences, float64.
        off: by how much confidences may differ through rounding, on the device where the unit was fitted.
    """

    x_NCHW: Tensor = field(repr=False)
    c_NK: Tensor = field(repr=False)
    off: float

    @classmethod
    def of(cls, asked: Classifier, image_shape: tuple[int, int, int]) -> Probe:
        """Of each label in turn, the images of which the classifier is least sure: there a change shows most.

        Args:
            asked: answers images of ``image_shape``, (C, H, W).
        """
        x_NCHW = synthetic_images(image_shape, DRAWN)
        c_NK = torch.softmax(answers(asked, x_NCHW).double(), 1)
        unsure = c_NK.amax(1).argsort(stable=True)
        x_probe = x_NCHW[unsure[spread(c_NK.argmax(1)[unsure], IMAGES)]].clone()
        z_NK = answers(asked, x_probe)
        return cls(x_probe, torch.softmax(z_NK.double(), 1), rounding(z_NK, asked.device))

    def check(self, asked: Classifier, *, stated: bool, same: bool) -> None:
        """Check that a classifier answers as the one that the unit was fitted for.

        Args:
            stated: whether the user stated what its outputs are.
            same: whether it has to be the same classifier.

        Raises:
            ConfigError: its outputs look like probabilities and the user did not state so; or it has to be
                the same classifier, and its confidences differ by more than rounding.
        """
        z_NK = answers(asked, self.x_NCHW)
        if not stated and (what := signs_of_probabilities(z_NK)):
            raise ConfigError(
                f"classifier {asked.name} returns probabilities ({what}), this unit was fitted for one that "
                "gives logits: return the values before the last softmax or sigmoid, or state what it gives: "
                "outputs='probabilities' or outputs='logits'"
            )
        off = float((torch.softmax(z_NK.double(), 1) - self.c_NK).abs().max())
        if same and off > (bound := max(self.off, rounding(z_NK, asked.device))):
            raise ConfigError(
                f"classifier {asked.name} gives other answers to the unit's probe images (confidences differ "
                f"by up to {off:.2g}, {bound:.2g} may be rounding): another classifier, or other weights; "
                "fit a unit for this one"
            )

    def state(self) -> dict[str, Tensor]:
        """The tensors for a unit's file. Images of 8 bits are stored as bytes."""
        bytes_NCHW = (self.x_NCHW * 255).round().to(torch.uint8)
        exact = torch.equal(bytes_NCHW.float() / 255, self.x_NCHW)
        x_NCHW = bytes_NCHW if exact else self.x_NCHW
        found = {"x": x_NCHW, "c": self.c_NK, "off": torch.tensor(self.off, dtype=torch.float64)}
        return {PREFIX + name: value.contiguous() for name, value in found.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Probe | None:
        """Inverse of :meth:`state`; None for a unit that an earlier version saved without a probe.

        Raises:
            KeyError, ValueError: some tensors are missing, or do not belong together.
        """
        if not any(name.startswith(PREFIX) for name in state):
            return None
        x_NCHW, c_NK, off = (state[PREFIX + name].cpu() for name in ("x", "c", "off"))
        if x_NCHW.ndim != 4 or c_NK.ndim != 2 or len(x_NCHW) != len(c_NK) or off.numel() != 1:
            raise ValueError(f"probe images {tuple(x_NCHW.shape)}, answers {tuple(c_NK.shape)}")
        if x_NCHW.dtype == torch.uint8:
            x_NCHW = x_NCHW.float() / 255
        return cls(x_NCHW, c_NK, float(off))


def synthetic_images(image_shape: tuple[int, int, int], n: int) -> Tensor:
    """Random images (n, C, H, W) of 8 bits, the same each time: from smooth to noise, from pale to stark."""
    channels, height, width = image_shape
    rng, images = generator(0, "probe images"), []
    for i in range(n):
        side, contrast = SIDES[i % len(SIDES)], CONTRASTS[i // len(SIDES) % len(CONTRASTS)]
        small = (height, width) if side is None else (min(side, height), min(side, width))
        pixels = torch.rand(1, channels, *small, generator=rng)
        x_1CHW = F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False)
        x_1CHW = (x_1CHW - 0.5) * contrast + torch.rand(1, generator=rng)
        images.append((x_1CHW.clamp(0, 1) * 255).round() / 255)
    return torch.cat(images)
