r"""Protect one of torchvision's classifiers of 224 pixels, with the transforms that belong to its weights.

    python study/examples/protect_224.py --out protected-224

The images are scikit-learn's digits, grey and of 32 pixels; the classifier, torchvision's
shufflenet_v2_x0_5, takes colour images of 224. Between them stand the transforms that belong to its weights,
``ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.transforms()``: resize to 256, crop 224, normalise. Nothing is
downloaded: the example trains the classifier itself. With torchvision's weights at hand,
``shufflenet_v2_x0_5(weights=WEIGHTS)`` takes its place.

The unit keeps the transforms, and a study takes the factory ``classifier``, which states them:

    mipoison pareto --victim study.examples.protect_224:classifier \
        --victim-state protected-224/net.safetensors

Below a minute on two CPU cores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.models import ShuffleNet_V2_X0_5_Weights, shufflenet_v2_x0_5

from mipoison.metrics.utility import confidence_distortion, label_agreement
from mipoison.serving.protect import fit_unit, load_unit, load_victim
from mipoison.victims import preprocessed

WEIGHTS = ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
NETWORK = "study.examples.protect_224:network"
SIDE = 32


def network() -> nn.Module:
    """torchvision's own, which takes colour images of 224 pixels, normalised."""
    return shufflenet_v2_x0_5(weights=None, num_classes=10)


def classifier() -> nn.Module:
    """The same behind its transforms: takes grey images in [0, 1] of any size. ``--victim`` may name it."""
    return preprocessed(network(), WEIGHTS.transforms())


def digits() -> tuple[Tensor, Tensor]:
    """Images (N, 1, 32, 32) in [0, 1], and labels."""
    found = load_digits()
    x = torch.from_numpy(found.images).float()[:, None] / 16
    return F.interpolate(x, SIDE, mode="bilinear"), torch.from_numpy(found.target).long()


def train(model: nn.Module, x_NCHW: Tensor, y_N: Tensor, *, steps: int = 60, batch: int = 32) -> None:
    """Train with Adam on cross-entropy."""
    rng = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(x_NCHW), (batch,), generator=rng)
        optimiser.zero_grad()
        F.cross_entropy(model(x_NCHW[rows]), y_N[rows]).backward()
        optimiser.step()
    model.eval()


@dataclass(frozen=True)
class Arguments:
    """Protect one of torchvision's classifiers of 224 pixels."""

    out: Path = Path("protected-224")
    """folder for weights and unit"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example."""
    out = tyro.cli(Arguments, args=arguments, prog="study/examples/protect_224.py").out
    out.mkdir(parents=True, exist_ok=True)
    x, y = digits()
    private, public, queries = slice(0, 160), slice(160, 260), slice(260, 320)
    torch.manual_seed(0)
    trained = classifier()
    train(trained, x[private], y[private])
    net = trained.module
    assert isinstance(net, nn.Module)
    save_file(net.state_dict(), out / "net.safetensors")

    model = load_victim(NETWORK, str(out / "net.safetensors"))
    unit = fit_unit(
        model,
        private=(x[private], y[private]),
        public=x[public],
        defense="rounding",
        config={"decimals": 1},
        transforms=WEIGHTS.transforms(),
    )
    unit.save(out / "unit")
    protected = load_unit(out / "unit").wrap(model)  # the unit knows the transforms
    with torch.no_grad():
        clean = torch.softmax(net(WEIGHTS.transforms()(x[queries].expand(-1, 3, -1, -1))), 1)
    released = protected(x[queries]).cpu()
    right = float((clean.argmax(1) == y[queries]).double().mean())
    print(f"the network recognises {right:.0%} of {len(clean)} new digits")
    print(
        f"{len(released)} answers: distortion {confidence_distortion(clean, released):.4f}, "
        f"label agreement {label_agreement(clean, released):.0%}"
    )
    print(f"mipoison serve --unit {out / 'unit'} --victim {NETWORK} --victim-state {out / 'net.safetensors'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
