"""What more images would give an attacker: errors at several sizes, and their extrapolation.

    python study/examples/learning_curve.py
    python study/examples/learning_curve.py --defense noise --knob budget=0.01 --seeds 3

One defense, one attacker (ridge: closed form). The attacker's images are shuffled once a seed, and its
first n are what it has at size n, so that sizes are nested. For each size the mean error on the private
training images is printed; below it the fitted law ``a + b n^-c``, its limit a with an interval over the
private images and, from two seeds on, the attacker's images, and the estimated limit of the released
vectors. An extrapolation bounds nothing.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from mipoison.attacks import ATTACKS
from mipoison.config import choose
from mipoison.defenses import DEFENSES
from mipoison.deployment import deploy, release
from mipoison.metrics.learning_curve import learning_curve
from mipoison.randomness import role_seed
from mipoison.scene import prepare, scaled
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from study.trial.curves import errors_at
from study.trial.rerun import changed

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Sizes, as shares of the attacker's images."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Extrapolate an attacker's error over the number of its images."""

    dataset: str = "digits"
    """as for study/pareto.py"""
    data_root: Path | None = None
    """data folder"""
    defense: str = "none"
    """a defense family"""
    knob: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE [NAME=VALUE ...]")] = ()
    """knobs that differ from the defense's defaults"""
    attack: str = "ridge"
    """an attacker; it is trained five times a seed"""
    seeds: int = 2
    """victims and splits"""
    limit: int | None = None
    """at most so many training images a side; default: the quick scale's"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print the table."""
    chosen = tyro.cli(Arguments, args=arguments, prog="study/examples/learning_curve.py")
    choose("defense", chosen.defense, DEFENSES)
    choose("attacker", chosen.attack, ATTACKS)
    setting = changed(DEFENSES[chosen.defense], {}, list(chosen.knob))
    errors, limits, sizes, seeds = [], [], [0], []
    with tempfile.TemporaryDirectory(prefix="mipoison-") as root:
        for seed in range(chosen.seeds):
            scene = prepare(
                scaled(chosen.dataset, "quick", seed=seed, limit=chosen.limit),
                ArtifactStore(Storage(root)),
                data_root=chosen.data_root,
            )
            deployment = deploy(scene, chosen.defense, setting)
            sizes = [round(share * len(scene.split.attack_train)) for share in SHARES]
            errors.append(errors_at(deployment, ATTACKS[chosen.attack], sizes)["train"])
            seeds += [seed] * errors[-1].shape[1]
            limits.append(release(deployment).columns["estimated_limit"])
    together_SN = np.concatenate(errors, axis=1)
    rng = np.random.default_rng(role_seed(0, "learning curve"))
    curve = learning_curve(sizes, together_SN, rng=rng, seed_N=seeds)
    table = Table("images", "mean error", "law", title=f"{chosen.attack} on {chosen.defense}")
    for size, error, fitted in zip(sizes, together_SN.mean(axis=1), curve.error(sizes), strict=True):
        table.add_row(str(size), f"{error:.5f}", f"{fitted:.5f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"law: {curve.limit:.5f} + {curve.scale:.3g} n^-{curve.exponent:.2f}")
    console.print(f"limit with ever more images: {curve.limit:.5f} [{curve.low:.5f}, {curve.high:.5f}]")
    console.print(f"estimated limit, without an attacker: {np.mean(limits):.5f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
