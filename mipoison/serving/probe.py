"""What a classifier answered when its unit was fitted: weights do not show what ``forward`` makes of them.

A temperature in a plain attribute, a hook, weights in a closure: a classifier that differs in such a thing
has the same digest and other answers. So a unit keeps a few public images with the answers, and asks again.

Shape suffixes: N images, K classes, CHW image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.victims.ask import Classifier
from mipoison.victims.check import answers, rounding, spread
from mipoison.victims.outputs import signs_of_probabilities

IMAGES = 16
"""Public images that a unit keeps, at most."""
PREFIX = "probe."
"""Of its entries in a unit's file: images ``x``, confidences ``c``, and ``off``, what is rounding."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Attributes:
    x_NCHW: public images in [0, 1], float32, on the CPU. c_NK: the classifier's confidences, float64.
    off: by how much they may differ by rounding, as it was computed at fitting.
    """

    x_NCHW: Tensor
    c_NK: Tensor
    off: float

    @classmethod
    def of(cls, asked: Classifier, x_NCHW: Tensor, y_N: Tensor, c_NK: Tensor) -> Probe:
        """Ask the images, the classes in turn, of which the classifier is least sure: they show most.

        Args:
            x_NCHW, y_N, c_NK: public images, their labels, and the classifier's confidences.
        """
        unsure = c_NK.cpu().amax(1).argsort(stable=True)
        x_probe = x_NCHW[unsure[spread(y_N.cpu()[unsure], IMAGES)]].clone()
        z_NK = answers(asked, x_probe)
        return cls(x_probe, torch.softmax(z_NK.double(), 1), rounding(z_NK, asked.device))

    def check(self, asked: Classifier, *, stated: bool, same: bool) -> None:
        """Whether a classifier answers as the one that the unit was fitted for.

        Args:
            stated: somebody says what its outputs are. same: it has to be the same classifier.

        Raises:
            ConfigError: it gives probabilities that nobody stated, or, where it has to be the same, others.
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
                f"classifier {asked.name} answers the unit's probe images otherwise (confidences differ by "
                f"up to {off:.2g}, at most {bound:.2g} is rounding): another classifier, or other weights; "
                "fit a unit for this one"
            )

    def state(self) -> dict[str, Tensor]:
        """Entries of a unit's file; images of 8 bits take 8 bits."""
        bytes_NCHW = (self.x_NCHW * 255).round().to(torch.uint8)
        exact = torch.equal(bytes_NCHW.float() / 255, self.x_NCHW)
        x_NCHW = bytes_NCHW if exact else self.x_NCHW
        found = {"x": x_NCHW, "c": self.c_NK, "off": torch.tensor(self.off, dtype=torch.float64)}
        return {PREFIX + name: value.contiguous() for name, value in found.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Probe | None:
        """Of a unit's entries; None where an earlier version saved none.

        Raises:
            KeyError, ValueError: some of them are missing, or none that belong together.
        """
        if not any(name.startswith(PREFIX) for name in state):
            return None
        x_NCHW, c_NK, off = (state[PREFIX + name].cpu() for name in ("x", "c", "off"))
        if x_NCHW.ndim != 4 or c_NK.ndim != 2 or len(x_NCHW) != len(c_NK) or off.numel() != 1:
            raise ValueError(f"probe images {tuple(x_NCHW.shape)}, answers {tuple(c_NK.shape)}")
        if x_NCHW.dtype == torch.uint8:
            x_NCHW = x_NCHW.float() / 255
        return cls(x_NCHW, c_NK, float(off))
