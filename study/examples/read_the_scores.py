"""The closed-form attacker that refuted our recommendation of tail noise.

    python study/examples/read_the_scores.py
    python study/examples/read_the_scores.py --dataset fashion-mnist --data-root DATA --seeds 2

It reconstructs an image as the mean image of the label plus a regression on the released scores: on
``log(1 - max c)`` or on ``log(max(c, f))``, linear per label or with a Gaussian kernel. Cross-validation on
its own images chooses the regression and its penalty; one choice is the mean image alone. Like every
attacker it gets the metered oracle and images of its own.

Printed for each setting: distortion and rank correlation on private test images; the excess leakage, the
share by which its error lies below that of the labels' mean images; and for rounding the certificate, one
minus the mean variance of images with equal answers over that of images with equal labels. No reconstruction
from the answers can have a mean error on these images below the former variance, whatever it was built from.

Shape suffixes: N samples, K classes, F features, D pixels.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
import tyro
from torch import Tensor

from mipoison.attacks.ridge import ridge_path
from mipoison.attacks.selection import folds
from mipoison.config import Config
from mipoison.defenses.label_only import LabelOnlyConfig
from mipoison.defenses.noise import NoiseConfig
from mipoison.defenses.none import NoneConfig
from mipoison.defenses.rounding import RoundingConfig
from mipoison.defenses.tail_noise import TailNoiseConfig
from mipoison.deployment import deploy, release
from mipoison.metrics.statistics import mean_interval
from mipoison.metrics.utility import confidence_distortion, rank_correlation
from mipoison.randomness import generator
from mipoison.scene import Scene, prepare, scaled
from mipoison.service import MeteredOracle
from mipoison.simplex import label_of
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage

SETTINGS: dict[str, tuple[str, Config]] = {
    "none": ("none", NoneConfig()),
    "tail-noise 0.01": ("tail-noise", TailNoiseConfig(budget=0.01)),
    "noise 0.015": ("noise", NoiseConfig(budget=0.015)),
    "rounding, 2 decimals": ("rounding", RoundingConfig(decimals=2)),
    "rounding, 1 decimal": ("rounding", RoundingConfig(decimals=1)),
    "label-only": ("label-only", LabelOnlyConfig()),
}
FLOORS = (1e-5, 1e-3)
"""Floors f to choose from: scores below f count as f, which hides noise among tiny scores."""
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
WIDTHS = (1.0, 3.0)
FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Read private images out of released scores, in closed form."""

    dataset: str = "digits"
    """as for study/pareto.py"""
    data_root: Path | None = None
    """data folder"""
    seeds: int = 3
    """number of seeds; each has its own victim and split"""
    limit: int | None = None
    """most training images a side; default: that of the quick scale"""


class Choice(NamedTuple):
    """A regression: ``mean`` (none), ``line`` (per label), ``kernel``; without a floor on log(1 - max c)."""

    how: str
    floor: float | None = None
    penalty: float = 0.0
    width: float = 0.0


CHOICES = (
    Choice("mean"),
    *(Choice("line", f, p) for f, p in product((None, *FLOORS), PENALTIES)),
    *(Choice("kernel", f, p, w) for f, p, w in product((None, *FLOORS), PENALTIES, WIDTHS)),
)


class Reader:
    """A regression fitted to released vectors and images."""

    def __init__(self, choice: Choice, c_NK: Tensor, x_ND: Tensor) -> None:
        self.choice, label_N, k = choice, label_of(c_NK), c_NK.shape[1]
        groups = [x_ND[label_N == j] for j in range(k)]
        self.mean_KD = torch.stack([g.mean(0) if len(g) else x_ND.mean(0) for g in groups])
        z_NF = self._raw(c_NK)
        self.centre_F, self.scale_F = z_NF.mean(0), z_NF.std(0, correction=0).clamp_min(1e-9)
        z_NF, rest_ND = self._features(c_NK), x_ND - self.mean_KD[label_N]
        if choice.how == "line":
            paths = {
                j: ridge_path(z_NF[label_N == j], rest_ND[label_N == j], (choice.penalty,))[0]
                for j in label_N.unique().tolist()
            }
            self.lines = paths
        elif choice.how == "kernel":
            self.own_NF = torch.cat([z_NF, self._one_hot(label_N)], 1)
            gram_NN = self._kernel(self.own_NF)
            weighted = gram_NN + len(gram_NN) * choice.penalty * 1e-2 * torch.eye(len(gram_NN)).double()
            self.weight_ND = torch.linalg.solve(weighted, rest_ND)

    def _raw(self, c_NK: Tensor) -> Tensor:
        if self.choice.floor is None:
            return (1 - c_NK.double().max(1, keepdim=True).values).clamp_min(1e-6).log()
        return c_NK.double().clamp_min(self.choice.floor).log()

    def _features(self, c_NK: Tensor) -> Tensor:
        return (self._raw(c_NK) - self.centre_F) / self.scale_F

    def _one_hot(self, label_N: Tensor) -> Tensor:
        """Scaled so that images of other labels have little weight in the kernel."""
        return 5 * torch.nn.functional.one_hot(label_N, len(self.mean_KD)).double()

    def _kernel(self, z_NF: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(z_NF, self.own_NF).square() / (2 * self.choice.width**2))

    def __call__(self, c_NK: Tensor) -> Tensor:
        label_N, z_NF = label_of(c_NK), self._features(c_NK)
        x_ND = self.mean_KD[label_N]
        if self.choice.how == "line":
            for j, (w_FD, b_D) in self.lines.items():
                x_ND[label_N == j] += z_NF[label_N == j] @ w_FD + b_D
        elif self.choice.how == "kernel":
            x_ND = x_ND + self._kernel(torch.cat([z_NF, self._one_hot(label_N)], 1)) @ self.weight_ND
        return x_ND.clamp(0, 1)


def chosen(c_NK: Tensor, x_ND: Tensor, rng: torch.Generator) -> Reader:
    """The regression of least cross-validated error, fitted to all of the attacker's pairs."""
    fold_N = folds(len(x_ND), FOLDS, rng)

    def error(choice: Choice) -> float:
        total = 0.0
        for held_N in (fold_N == k for k in range(FOLDS)):
            reader = Reader(choice, c_NK[~held_N], x_ND[~held_N])
            total += float((reader(c_NK[held_N]) - x_ND[held_N]).square().sum())
        return total

    return Reader(min(CHOICES, key=error), c_NK, x_ND)


def within(cell_N: Tensor, x_ND: Tensor) -> float:
    """Mean squared distance per pixel of images to the mean image of their cell."""
    size_C = torch.bincount(cell_N).clamp_min(1)
    sum_CD = torch.zeros(len(size_C), x_ND.shape[1], dtype=x_ND.dtype).index_add_(0, cell_N, x_ND)
    return float((x_ND - (sum_CD / size_C[:, None])[cell_N]).square().mean())


def read(scene: Scene, name: str, config: Config) -> dict[str, float]:
    """Cost and leakage of one setting on one seed."""
    deployment = deploy(scene, name, config)
    vectors = release(deployment).vectors
    oracle = MeteredOracle(deployment.service.session(), scene.split.n_classes)
    x_ND = scene.split.attack_train.x_NCHW.flatten(1).double()
    c_NK = oracle.query(scene.split.attack_train.x_NCHW)
    reader = chosen(c_NK, x_ND, generator(scene.config.seed, "read the scores"))
    floor = Reader(Choice("mean"), c_NK, x_ND)
    clean, released = scene.clean["private_test"], vectors["private_test"]
    out = {
        "distortion": confidence_distortion(clean, released),
        "rank correlation": rank_correlation(clean, released),
    }
    for part in ("train", "test"):
        c, x = vectors[f"private_{part}"], getattr(scene.split, f"private_{part}").x_NCHW.flatten(1).double()
        errors = [float((f(c) - x).square().mean()) for f in (reader, floor)]
        out[f"excess, {part}"] = 1 - errors[0] / errors[1]
        if name in ("rounding", "label-only"):
            cell_N = torch.unique(c, dim=0, return_inverse=True)[1]
            out[f"certified, {part}"] = 1 - within(cell_N, x) / within(label_of(c), x)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the attacker and print a line per setting."""
    chosen_arguments = tyro.cli(Arguments, args=arguments, prog="study/examples/read_the_scores.py")
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory(prefix="mipoison-") as root:
        for seed in range(chosen_arguments.seeds):
            scene = prepare(
                scaled(chosen_arguments.dataset, "quick", seed=seed, limit=chosen_arguments.limit),
                ArtifactStore(Storage(root)),
                data_root=chosen_arguments.data_root,
            )
            for name, setting in SETTINGS.items():
                rows[name].append(read(scene, *setting))
    for name, found in rows.items():
        texts = []
        for column in found[0]:
            values = mean_interval([row[column] for row in found])
            half = "" if values.high is None else f" +- {values.high - values.mean:.3f}"
            precise = column == "distortion"
            texts.append(f"{column} {values.mean:.4f}" if precise else f"{column} {values.mean:+.3f}{half}")
        print(f"{name}: " + "; ".join(texts), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
