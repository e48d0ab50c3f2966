"""Protect a classifier of Hugging Face's kind: ``model(pixel_values)`` returns an object with ``.logits``.

    python study/examples/protect_huggingface.py --out protected-huggingface

The model and its image processor here are small ones with the interface of the package transformers, which is
not needed: a tiny vision transformer for colour images of 224 pixels that the example trains itself, on
scikit-learn's digits, grey and of 16 pixels. With transformers installed, yours takes their place:

    model = AutoModelForImageClassification.from_pretrained("FOLDER")
    transforms = AutoImageProcessor.from_pretrained("FOLDER")   # or its preprocessor_config.json as a dict

``fit_unit(model, transforms=transforms)`` resizes and normalises as the processor says, takes the logits, and
keeps the statement in the unit. A quarter of a minute on two CPU cores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mipoison.metrics.utility import confidence_distortion, label_agreement
from mipoison.serving.protect import fit_unit, load_unit, load_victim
from mipoison.victims.preprocess import preprocessing_from

CLASSIFIER = "study.examples.protect_huggingface:classifier"
PROCESSOR: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""As in a ``preprocessor_config.json``."""


@dataclass
class ImageClassifierOutput:
    """What a model returns, as in transformers."""

    logits: Tensor
    loss: Tensor | None = None


class TinyViTForImageClassification(nn.Module):
    """A vision transformer of patches of 32 pixels, one layer, with transformers' call and output."""

    def __init__(self, n_labels: int = 10, width: int = 32, side: int = 224, patch: int = 32) -> None:
        super().__init__()
        self.side = side
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2, width))
        self.encoder = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True)
        self.classifier = nn.Linear((side // patch) ** 2 * width, n_labels)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        if pixel_values.shape[2:] != (self.side, self.side):
            raise ValueError(f"images of {tuple(pixel_values.shape[2:])}, it takes {self.side}x{self.side}")
        tokens = self.patches(pixel_values).flatten(2).mT + self.positions
        logits = self.classifier(self.encoder(tokens).flatten(1))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutput(logits, loss)


def classifier() -> nn.Module:
    """The factory that ``--victim`` names; ``--victim-state`` names the file of its trained weights."""
    return TinyViTForImageClassification()


def digits() -> tuple[Tensor, Tensor]:
    """Images (N, 1, 16, 16) in [0, 1], and labels."""
    found = load_digits()
    x = torch.from_numpy(found.images).float()[:, None] / 16
    return F.interpolate(x, 16, mode="bilinear"), torch.from_numpy(found.target).long()


def train(model: nn.Module, x_NCHW: Tensor, y_N: Tensor, *, steps: int = 150, batch: int = 32) -> None:
    """Train with Adam on the loss that the model returns, as transformers' Trainer does."""
    rng = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    prepare = preprocessing_from(PROCESSOR)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(x_NCHW), (batch,), generator=rng)
        optimiser.zero_grad()
        model(prepare(x_NCHW[rows]), labels=y_N[rows]).loss.backward()
        optimiser.step()
    model.eval()


@dataclass(frozen=True)
class Arguments:
    """Protect a classifier of Hugging Face's kind."""

    out: Path = Path("protected-huggingface")
    """folder for weights and unit"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example."""
    out = tyro.cli(Arguments, args=arguments, prog="study/examples/protect_huggingface.py").out
    out.mkdir(parents=True, exist_ok=True)
    x, y = digits()
    private, public, queries = slice(0, 400), slice(400, 800), slice(800, 1000)
    torch.manual_seed(0)
    trained = classifier()
    train(trained, x[private], y[private])
    save_file(trained.state_dict(), out / "vit.safetensors")

    model = load_victim(CLASSIFIER, str(out / "vit.safetensors"))
    unit = fit_unit(
        model,
        private=(x[private], y[private]),
        public=x[public],
        defense="rounding",
        config={"decimals": 1},
        transforms=PROCESSOR,
    )
    unit.save(out / "unit")
    protected = load_unit(out / "unit").wrap(model)  # the unit knows the transforms
    with torch.no_grad():
        clean = torch.softmax(trained(preprocessing_from(PROCESSOR)(x[queries])).logits, 1)
    released = protected(x[queries]).cpu()
    right = float((clean.argmax(1) == y[queries]).double().mean())
    print(f"the transformer recognises {right:.0%} of {len(clean)} new digits")
    print(
        f"{len(released)} answers: distortion {confidence_distortion(clean, released):.4f}, "
        f"label agreement {label_agreement(clean, released):.0%}"
    )
    print(
        f"mipoison serve --unit {out / 'unit'} --victim {CLASSIFIER} --victim-state {out / 'vit.safetensors'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
