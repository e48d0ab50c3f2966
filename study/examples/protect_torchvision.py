"""Protect your own torchvision classifier, from an image folder to released vectors.

    python study/examples/protect_torchvision.py --out protected-digits

1. an image folder of scikit-learn's digits, with an explicit split: train/, test/ (private), attack/ (public)
2. a classifier trained on train/: torchvision's resnet18, no pretrained weights
3. a short study of it: which defense protects, at what cost
4. a post-processing unit fitted and saved; the classifier behind it answers; the command that serves it

Takes below a minute on two CPU cores. The study here is a demonstration (one setting, one seed): take the
defaults of study/pareto.py before you believe a number.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.models import resnet18

from mipoison.data.splits import make_split
from mipoison.defenses.rounding import RoundingConfig
from mipoison.metrics.utility import confidence_distortion, label_agreement
from mipoison.serving.protect import fit_unit, load_unit, load_victim
from study import pareto

CLASSIFIER = "study.examples.protect_torchvision:classifier"
SECRET = "an example's secret, not one to use"
SIDE = 32
PER_CLASS = 120


class GreyResNet(nn.Module):
    """resnet18 for grey images in [0, 1]; it adds channels and centres pixels itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(weights=None, num_classes=10)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.net(2 * x_NCHW.expand(-1, 3, -1, -1) - 1)


def classifier() -> nn.Module:
    """The factory that ``--victim`` names; ``--victim-state`` names the file of its trained weights."""
    return GreyResNet()


def write_folder(root: Path) -> None:
    """Write scans of digits to ``train/<digit>/*.png``, and so to ``test/`` and ``attack/``."""
    digits = load_digits()
    count = dict.fromkeys(range(10), 0)
    for pixels, label in zip(digits.images, digits.target.tolist(), strict=True):
        count[label] += 1
        if count[label] <= PER_CLASS:
            side = "test" if count[label] % 10 == 1 else "train" if count[label] % 2 else "attack"
            folder = root / side / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            scan = Image.fromarray((pixels * (255 / 16)).round().astype("uint8"))
            scan.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(folder / f"{count[label]:03d}.png")


def train(model: nn.Module, x_NCHW: Tensor, y_N: Tensor, *, steps: int = 50, batch: int = 32) -> float:
    """Train with Adam on cross-entropy; return the accuracy on the training images."""
    rng = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(x_NCHW), (batch,), generator=rng)
        optimiser.zero_grad()
        F.cross_entropy(model(x_NCHW[rows]), y_N[rows]).backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        return float((model(x_NCHW).argmax(1) == y_N).double().mean())


@dataclass(frozen=True)
class Arguments:
    """Protect a torchvision classifier, from an image folder to released vectors."""

    out: Path = Path("protected-digits")
    """folder for images, weights, study and unit"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return the exit code of its study."""
    out = tyro.cli(Arguments, args=arguments, prog="study/examples/protect_torchvision.py").out
    folder, weights = out / "images", out / "resnet18.safetensors"
    write_folder(folder)

    # The same four-way split as the study's: all of train/ is private_train, all of test/ is private_test.
    split = make_split(f"folder:{folder}", auxiliary="same", seed=0, image_size=SIDE)
    torch.manual_seed(0)
    model = classifier()
    accuracy = train(model, split.private_train.x_NCHW, split.private_train.y_N)
    save_file(model.state_dict(), weights)
    print(f"resnet18 recognises {accuracy:.0%} of train/")

    victim = ["--victim", CLASSIFIER, "--victim-state", str(weights)]
    code = pareto.main(
        ["--dataset", f"folder:{folder}", *victim, "--executor", "local", "--storage", str(out / "results"),
         "--defenses", "rounding", "--attackers", "passive", "label-only", "--trials", "1", "--seeds", "1",
         "--victim-steps", "60", "--decoder-steps", "40"]
    )  # fmt: skip
    if code:
        return code

    # Load, fit, save, load, wrap. The secret is for units that draw: noise, LPA; rounding draws nothing.
    model = load_victim(CLASSIFIER, str(weights))
    unit = fit_unit(
        model,
        private=(split.private_train.x_NCHW, split.private_train.y_N),
        public=split.attack_train.x_NCHW,
        defense="rounding",
        config=RoundingConfig(decimals=1),
    )
    unit.save(out / "unit", overwrite=True)
    protected = load_unit(out / "unit").wrap(model, secret=SECRET)
    queries = split.attack_test.x_NCHW
    with torch.no_grad():
        clean, released = torch.softmax(model(queries), 1), protected(queries)
    print(
        f"{len(queries)} answers: distortion {confidence_distortion(clean, released):.4f}, "
        f"label agreement {label_agreement(clean, released):.0%}"
    )
    print(f"MIPOISON_SECRET=... python study/serve.py --unit {out / 'unit'} {' '.join(victim)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
