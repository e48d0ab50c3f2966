"""How often the verdicts are wrong: simulated studies of which the true leakage is known.

``python -m study.bench.calibration OUT.csv`` writes a table. In a
simulated study each attacker has a true mean error, each seed a deviation from it of its own (another victim,
another split), and each image a skewed difficulty that all attackers share. Without leakage no attacker of
the setting is better than the best on label-only, and many are as good, so that the least of their measured
errors lies below label-only's by chance: that is what a verdict must not be taken in by.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.progress import track

from mipoison.metrics.excess import MARGIN, Excess, excess_interval, seeds_needed, verdict
from mipoison.metrics.half_samples import half_samples

Array = NDArray[np.float64]
STUDIES = 1000
FALSE_LEAKS, FOUND = 0.05, 0.9
"""What is asked of the verdicts: at most this share of studies without leakage say ``leaks``; at least this
share of those with an excess of MARGIN do, at the number of seeds that the planner named."""
MOST = 100
"""Seeds of a simulated study at most: a planner that asks for more is counted and left out."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What the simulated studies have in common.

    Attributes:
        excess: true gain of the setting's two best attackers over the best on label-only.
        spread: standard deviation of an attacker's error over seeds, a share of the error.
        images: private train and private test images.
        attackers: in the setting's suite, and in label-only's; the first is the label's class mean.
        tied: share of the others that are truly as good as the best; the rest are up to a tenth worse.
    """

    excess: float
    spread: float
    images: tuple[int, int] = (361, 180)
    attackers: int = 12
    tied: float = 0.5


def simulated_excess(world: World, n_seeds: int, rng: np.random.Generator) -> list[Excess]:
    """Measured excess on both pools of one simulated study."""
    worse = np.where(
        rng.random((2, world.attackers)) < world.tied, 0.0, rng.random((2, world.attackers)) / 10
    )
    worse[:, 0] = 0.0
    setting, label_only = 1 + worse
    setting[1:3] = 1 - world.excess
    out = []
    for n_images in world.images:
        weights = np.vstack([np.full(n_images, 1 / n_images), half_samples(n_images).numpy()])
        images_SN = rng.gamma(4.0, 0.01, (n_seeds, n_images))
        out.append(
            excess_interval(
                _errors(setting, images_SN, weights, world, rng),
                _errors(label_only, images_SN, weights, world, rng),
                rng=rng,
            )
        )
    return out


def _errors(true_A: Array, images_SN: Array, weights: Array, world: World, rng: np.random.Generator) -> Array:
    """Mean errors (seeds, attackers, 1 + half-samples); the class mean is the same in both suites."""
    n_seeds, n_images = images_SN.shape
    level_SA = true_A + world.spread * rng.standard_normal((n_seeds, len(true_A)))
    own_SAN = 0.15 * rng.standard_normal((n_seeds, len(true_A), n_images))
    level_SA[:, 0], own_SAN[:, 0] = 1.0, 0.0
    return np.maximum(images_SN[:, None] * (level_SA[..., None] + own_SAN), 1e-9) @ weights.T


def calibration(*, studies: int = STUDIES, seed: int = 0) -> Iterator[dict[str, Any]]:
    """One row for each world and number of seeds: how often which verdict was given.

    ``planner``: each simulated study is planned from the spread of a pilot of five seeds and then run with
    the number of seeds that :func:`seeds_needed` names (at most MOST).
    """
    rng = np.random.default_rng(seed)
    for spread in (0.003, 0.01, 0.03):
        for excess in (0.0, MARGIN, 2 * MARGIN):
            world = World(excess=excess, spread=spread)
            for n_seeds in (3, 5, 10):
                yield _row(world, str(n_seeds), [n_seeds] * studies, rng)
        pilots = [simulated_excess(World(excess=MARGIN, spread=spread), 5, rng) for _ in range(studies)]
        planned = [
            seeds_needed(max(p.spread for p in pools if p.spread is not None), MARGIN, pilot=5)
            for pools in pilots
        ]
        yield _row(World(excess=MARGIN, spread=spread), "planner", planned, rng)


def _row(world: World, name: str, seeds: Sequence[int], rng: np.random.Generator) -> dict[str, Any]:
    run = [n for n in seeds if n <= MOST]
    found: Counter[str] = Counter()
    above = below = 0
    for n in run:
        train, test = simulated_excess(world, n, rng)
        found[verdict(train, test)] += 1
        above += train.low is not None and train.low > world.excess
        below += train.high is not None and train.high < world.excess
    n = max(len(run), 1)
    leaks = found["leaks"] / n
    holds = None
    if world.excess == 0:
        holds = leaks <= FALSE_LEAKS
    elif name == "planner":
        holds = leaks >= FOUND
    return {
        "true_excess": world.excess, "spread_over_seeds": world.spread, "seeds": name,
        "median_seeds": float(np.median(seeds)), "studies": len(run), "beyond_most": len(seeds) - len(run),
        **{f"share_{kind}": found[kind] / n for kind in ("safe", "leaks", "undecided")},
        "low_above_truth": above / n, "high_below_truth": below / n, "holds": holds,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table; exit code 1 where a bar is missed, 2 for bad usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) != 1 or not words[0].endswith(".csv"):
        print("usage: python -m study.bench.calibration OUT.csv", file=sys.stderr)
        return 2
    table = pd.DataFrame(list(track(calibration(), "simulated studies", total=30, transient=True)))
    Path(words[0]).parent.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(words[0], index=False)
    print(table.round(3).to_string(index=False))
    return int(any(held is False for held in table["holds"]))


if __name__ == "__main__":
    sys.exit(main())
