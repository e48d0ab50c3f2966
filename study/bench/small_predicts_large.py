"""Whether a small study ranks defenses as a large one does: two studies of one data set at different sizes.

    python -m study.bench.small_predicts_large RECORDS_SMALL RECORDS_LARGE

Both are folders of studies or compact copies. Compared are the settings, and counted the attackers, that both
have. Printed is a row of a Markdown table (with its head): Kendall's tau-b between the excess leakage of the
settings in both studies, and by which share the small study's worst errors are off, on private train and test
images. In brackets: 95 % bootstrap intervals, seeds of both studies drawn anew, the worst attackers chosen
anew each time.

Shape suffixes: T settings, S seeds, A attackers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats
import tyro
from numpy.typing import NDArray

from mipoison.config import ConfigError
from mipoison.defenses import LABEL_ONLY
from study.paper.claims.evidence import Evidence, collect_one
from study.paper.claims.quantities import ERROR, IMAGES

Array = NDArray[np.float64]
FEWEST = 3
"""Settings that are ranked; with fewer, a rank correlation says nothing."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Does the small study predict the large one?"""

    small: tyro.conf.Positional[Path]
    """folder of the smaller study's records"""
    large: tyro.conf.Positional[Path]
    """folder of the larger study's records, of the same data set"""
    resamples: int = 2000
    """of the bootstrap"""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Errors:
    """Errors of one study, on one pool of private images.

    Attributes:
        error_TSA: of the settings' attackers. floor_SA: of label-only's.
    """

    error_TSA: Array
    floor_SA: Array

    def worst(self, seeds: NDArray[np.int64]) -> Array:
        """Error of each setting's worst attacker (T), chosen and averaged over some seeds."""
        return np.asarray(self.error_TSA[:, seeds].mean(axis=1).min(axis=1))

    def excess(self, seeds: NDArray[np.int64]) -> Array:
        """Excess leakage of each setting (T) over some seeds."""
        return np.asarray(1 - self.worst(seeds) / self.floor_SA[seeds].mean(axis=0).min())


def predicted(
    small: Errors, large: Errors, *, resamples: int, rng: np.random.Generator
) -> tuple[Estimate, Estimate]:
    """Kendall's tau-b between both studies' excess leakage, and the mean over settings of
    ``|small / large - 1|`` of their worst errors.

    Raises:
        ValueError: fewer than FEWEST settings.
    """
    if len(small.error_TSA) < FEWEST:
        raise ValueError(f"{len(small.error_TSA)} settings in common; a ranking needs {FEWEST}")
    both = (small, large)
    numbers = [e.error_TSA.shape[1] for e in both]

    def measure(seeds: Sequence[NDArray[np.int64]]) -> tuple[float, float]:
        a, b = (e.excess(s) for e, s in zip(both, seeds, strict=True))
        x, y = (e.worst(s) for e, s in zip(both, seeds, strict=True))
        return float(scipy.stats.kendalltau(a, b).statistic), float(np.abs(x / y - 1).mean())

    point = measure([np.arange(n) for n in numbers])
    drawn = np.array([measure([rng.integers(0, n, n) for n in numbers]) for _ in range(resamples)])
    bounds = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    tau, off = (Estimate(v, float(bounds[0, i]), float(bounds[1, i])) for i, v in enumerate(point))
    return tau, off


def common(small: Evidence, large: Evidence, pool: str) -> tuple[Errors, Errors, list[str], list[str]]:
    """Both studies' errors on the settings and attackers that they share, and the names of these.

    A study's seeds are those on which all of them succeeded.

    Raises:
        ConfigError: the data sets differ, or nothing is shared.
    """
    if (small.dataset, small.auxiliary) != (large.dataset, large.auxiliary):
        places = " and ".join(f"{e.dataset}, {e.auxiliary}" for e in (small, large))
        raise ConfigError(f"the studies differ in their data: {places}")
    trials = [{e.text(trial): trial for trial in e.settings} for e in (small, large)]
    names = sorted(set(trials[0]) & set(trials[1]))
    tables = [
        {name: e.by_seed(of[name], ERROR + pool) for name in names}
        for e, of in zip((small, large), trials, strict=True)
    ]
    names = [name for name in names if all(tables[i][name].size for i in (0, 1))]
    attackers = sorted(
        set.intersection(*(set(table.columns) for study in tables for table in study.values() if table.size))
        if names
        else set()
    )
    if LABEL_ONLY not in names or not attackers:
        raise ConfigError("the studies share no attackers, or lack label-only")
    found = []
    for study, e in zip(tables, (small, large), strict=True):
        wanted = {name: study[name].reindex(columns=attackers).dropna() for name in names}
        seeds = sorted(set.intersection(*(set(table.index) for table in wanted.values())))
        if not seeds:
            raise ConfigError(f"{e.name}: no seed on which every setting and attacker of both succeeded")
        ranked = [wanted[name].loc[seeds].to_numpy() for name in names if name != LABEL_ONLY]
        if len(ranked) < FEWEST:
            raise ConfigError(f"{len(ranked)} settings in common; a ranking needs {FEWEST}")
        found.append(Errors(np.stack(ranked), wanted[LABEL_ONLY].loc[seeds].to_numpy()))
    return found[0], found[1], [name for name in names if name != LABEL_ONLY], attackers


HEAD = (
    "data set", "images a side", "settings", "attackers", "seeds", "tau (train)", "tau (test)",
    "error off by (train)", "error off by (test)",
)  # fmt: skip


def row(small: Evidence, large: Evidence, *, resamples: int) -> list[str]:
    """The cells of HEAD for two studies."""
    estimates = {}
    for pool, images in IMAGES.items():
        a, b, names, attackers = common(small, large, pool)
        estimates[images] = predicted(a, b, resamples=resamples, rng=np.random.default_rng(0))
    sizes = [str(e.records["scene.limit"].iloc[0]) if "scene.limit" in e.records else "all"
             for e in (small, large)]  # fmt: skip
    sizes = ["all" if size in ("<NA>", "nan", "None") else size for size in sizes]
    seeds = [str(e.error_TSA.shape[1]) for e in (a, b)]
    return [
        small.dataset, " to ".join(sizes), str(len(names)), str(len(attackers)), " and ".join(seeds),
        *(str(estimates[images][0]) for images in IMAGES.values()),
        *(str(estimates[images][1]) for images in IMAGES.values()),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit code 2 for studies that cannot be compared."""
    chosen = tyro.cli(Arguments, args=arguments, prog="python -m study.bench.small_predicts_large")
    try:
        cells = row(collect_one(chosen.small), collect_one(chosen.large), resamples=chosen.resamples)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in (HEAD, ["---"] * len(HEAD), cells):
        print("| " + " | ".join(line) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
