"""Whether a small study ranks defenses as a large one does: two studies of one data set at different sizes.

    python -m study.bench.small_predicts_large RECORDS_SMALL RECORDS_LARGE

Both are folders of studies or compact copies. Compared are the settings that both have with equal knobs, by
the attackers that label-only faced in both; a setting that lacks one, or failed on a seed, is left out.
Printed is a row of a Markdown table (with its head), of private train / of private test images:

- Kendall's tau-b between the excess leakage of the settings in both studies, with a 95 % bootstrap interval
  (seeds of both drawn anew, the worst attackers chosen anew each time; too narrow with few seeds);
- by which share the small study's worst errors lie above those of the large one: the geometric mean over
  settings, with a 95 % Student-t interval over seeds (Welch's), and the mean of the shares without signs.

With fewer than FEWEST seeds in one of the studies, or where nothing differs, there are no intervals.

Shape suffixes: T settings, S seeds, A attackers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
import tyro
from numpy.typing import NDArray

from mipoison.config import ConfigError
from mipoison.data.datasets import DATASETS
from mipoison.defenses import LABEL_ONLY
from mipoison.metrics.statistics import ROUNDING
from study.paper.claims.evidence import Evidence, Setting, collect_one
from study.paper.claims.quantities import ERROR, IMAGES
from study.paper.claims.readings import FEWEST

Array = NDArray[np.float64]
RANKED = 3
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
    """A number with its 95 % interval; None where there is none. NaN: the number is not defined."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        bounds = "" if self.low is None or self.high is None else f" [{self.low:z.2f}, {self.high:z.2f}]"
        return f"{self.value:z.2f}{bounds}"


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

    def logs(self) -> Array:
        """By seed (S): the mean over settings of the logarithm of the error of each one's worst attacker."""
        worst_T = self.error_TSA.mean(axis=1).argmin(axis=1)
        return np.asarray(np.log(self.error_TSA[np.arange(len(worst_T)), :, worst_T]).mean(axis=0))

    def excess(self, seeds: NDArray[np.int64]) -> Array:
        """Excess leakage of each setting (T) over some seeds."""
        return np.asarray(1 - self.worst(seeds) / self.floor_SA[seeds].mean(axis=0).min())

    @property
    def all_seeds(self) -> NDArray[np.int64]:
        """The places of all seeds (S)."""
        return np.arange(self.error_TSA.shape[1])


def tau(small: Errors, large: Errors, *, resamples: int, rng: np.random.Generator) -> Estimate:
    """Kendall's tau-b between both studies' excess leakage. NaN where all settings of one are equal.

    Raises:
        ValueError: fewer than RANKED settings.
    """
    if len(small.error_TSA) < RANKED:
        raise ValueError(f"{len(small.error_TSA)} settings in common; a ranking needs {RANKED}")
    numbers = [len(e.all_seeds) for e in (small, large)]

    def measure(seeds: Sequence[NDArray[np.int64]]) -> float:
        a, b = (e.excess(s) for e, s in zip((small, large), seeds, strict=True))
        equal = any(np.ptp(x) <= ROUNDING for x in (a, b))
        return math.nan if equal else float(scipy.stats.kendalltau(a, b).statistic)

    value = measure([small.all_seeds, large.all_seeds])
    if min(numbers) < FEWEST or math.isnan(value):
        return Estimate(value)
    drawn = np.array([measure([rng.integers(0, n, n) for n in numbers]) for _ in range(resamples)])
    low, high = np.quantile(drawn[~np.isnan(drawn)], [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def off(small: Errors, large: Errors) -> Estimate:
    """By which share the small study's worst errors lie above those of the large one (below: negative).

    That of the geometric mean over settings. The seeds of each study are a sample; the interval is Welch's.
    """
    a, b = small.logs(), large.logs()
    value = math.expm1(a.mean() - b.mean())
    if min(len(a), len(b)) < FEWEST or max(np.ptp(a), np.ptp(b)) <= ROUNDING:
        return Estimate(value)
    interval = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return Estimate(value, math.expm1(interval.low), math.expm1(interval.high))


def off_each(small: Errors, large: Errors) -> float:
    """The mean over settings of ``|small / large - 1|`` of their worst errors."""
    return float(np.abs(small.worst(small.all_seeds) / large.worst(large.all_seeds) - 1).mean())


@dataclass(frozen=True)
class Common:
    """What two studies share on one pool of private images.

    Attributes:
        settings: in words, in the order of the errors. attackers: by name.
    """

    small: Errors
    large: Errors
    settings: tuple[str, ...]
    attackers: tuple[str, ...]


def check_data(small: Evidence, large: Evidence) -> None:
    """Refuse studies of different data.

    Raises:
        ConfigError: another data set, classes of the attacker's images, or content of the user's own images;
            or nothing that says whether these are the same.
    """
    if (small.dataset, small.auxiliary) != (large.dataset, large.auxiliary):
        places = " and ".join(f"{e.dataset}, {e.auxiliary}" for e in (small, large))
        raise ConfigError(f"the studies differ in their data: {places}")
    if small.dataset not in DATASETS or DATASETS[small.dataset].kind != "folder":
        return
    names = [str(e.records["dataset"].iloc[0]) for e in (small, large)]
    same = names[0] == names[1] and ":" in names[0]
    if None not in (small.content, large.content):
        same = small.content == large.content
    if not same:
        raise ConfigError("the studies differ in their data: other images of your own, or records that do "
                          "not say which")  # fmt: skip


def common(small: Evidence, large: Evidence, pool: str) -> Common:
    """Both studies' errors on the settings and attackers that they share.

    Raises:
        ConfigError: the data differ, or too little is shared.
    """
    check_data(small, large)
    both = (small, large)
    floors = [_label_only(e, pool) for e in both]
    attackers = sorted(set.intersection(*(set(floor.columns) for floor in floors)))
    if not attackers:
        raise ConfigError("the studies share no attackers, or lack label-only")
    floors = [floor[attackers].dropna() for floor in floors]
    found = [_whole(e, floor, pool) for e, floor in zip(both, floors, strict=True)]
    settings = sorted(set(found[0]) & set(found[1]))
    if len(settings) < RANKED:
        raise ConfigError(f"{len(settings)} settings in common; a ranking needs {RANKED}")
    errors = []
    for e, floor, tables in zip(both, floors, found, strict=True):
        shared = (set(tables[name].index) for name in settings)
        seeds = sorted(set(floor.index).intersection(*shared))
        if not seeds:
            raise ConfigError(f"{e.name}: no seed on which every setting and attacker of both succeeded")
        stacked = np.stack([tables[name].loc[seeds].to_numpy() for name in settings])
        errors.append(Errors(stacked, floor.loc[seeds].to_numpy()))
    words = {small.exact(trial): small.text(trial) for trial in small.settings}
    return Common(errors[0], errors[1], tuple(words[name] for name in settings), tuple(attackers))


def _label_only(e: Evidence, pool: str) -> pd.DataFrame:
    """Label-only's errors (seeds down, attackers across), of attackers with a value; empty without it."""
    trials = e.trials(Setting(LABEL_ONLY))
    return e.by_seed(trials[0], ERROR + pool).dropna(axis=1, how="all") if trials else pd.DataFrame()


def _whole(e: Evidence, floor: pd.DataFrame, pool: str) -> dict[str, pd.DataFrame]:
    """Settings (but label-only) by their exact knobs, without a gap on the seeds that they share with it."""
    found: dict[str, pd.DataFrame] = {}
    for trial, row in sorted(e.settings.items()):
        table = e.by_seed(trial, ERROR + pool)
        if row["defense"] == LABEL_ONLY or not set(floor.columns) <= set(table.columns):
            continue
        begun = set(e.records.loc[e.records["trial"] == trial, "seed"])
        table = table.reindex(index=sorted(begun & set(floor.index)), columns=list(floor.columns))
        other = found.get(e.exact(trial))
        if len(table) and table.notna().all(axis=None) and (other is None or len(other) < len(table)):
            found[e.exact(trial)] = table
    return found


HEAD = (
    "data set", "images a side", "settings", "attackers", "seeds (small)", "seeds (large)", "tau (train)",
    "tau (test)", "error off by (train)", "error off by (test)",
)  # fmt: skip
"""Counts are of train / test images."""


def row(small: Evidence, large: Evidence, *, resamples: int) -> list[str]:
    """The cells of HEAD for two studies.

    Raises:
        ConfigError: see :func:`common`.
    """
    pools = [common(small, large, pool) for pool in IMAGES]
    sizes = [e.records["scene.limit"].iloc[0] if "scene.limit" in e.records else None for e in (small, large)]
    counts = (
        [len(c.settings) for c in pools],
        [len(c.attackers) for c in pools],
        [len(c.small.all_seeds) for c in pools],
        [len(c.large.all_seeds) for c in pools],
    )
    return [
        small.dataset,
        " to ".join("all" if size is None or pd.isna(size) else f"{size:g}" for size in sizes),
        *(" / ".join(map(str, of)) for of in counts),
        *(str(tau(c.small, c.large, resamples=resamples, rng=np.random.default_rng(0))) for c in pools),
        *(f"{off(c.small, c.large)}, each {off_each(c.small, c.large):.2f}" for c in pools),
    ]


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
