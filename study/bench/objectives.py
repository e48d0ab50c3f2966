"""Measures the final cosine that objectives and engines reach on trained substitutes at equal distortion.

The search is the descent of Algorithm 1, whose rounds differ in nothing but the gradient.

The reference engine computes all cosines. A result is a dictionary per setting.
"""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro
from torch import Tensor

from mipoison.defenses.lpa import LPA, LPAConfig
from mipoison.metrics.statistics import mean_interval
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene, prepare, scaled
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage

BUDGETS = (1e-4, 1e-3, 1e-2, 0.1, 0.5)
VARIANTS: dict[str, dict[str, Any]] = {
    "exact": dict(engine="forward-over-reverse"),
    "exact bf16": dict(engine="forward-over-reverse-bf16"),
    "refresh 2": dict(engine="forward-over-reverse", refresh=2),
    "refresh 2 bf16": dict(engine="forward-over-reverse-bf16", refresh=2),
    "frozen": dict(engine="forward-over-reverse", objective="frozen"),
    "frozen bf16": dict(engine="forward-over-reverse-bf16", objective="frozen"),
}


def outcome(defense: LPA, c_NK: Tensor, x_NCHW: Tensor) -> tuple[float, float]:
    """Mean cosine to the target (by the reference engine) and mean l2 distortion of the released vectors."""
    rng = QueryRandomness(content_keys(x_NCHW, b"benchmark"))
    z_NK = defense.protect(c_NK, x_NCHW, defense.pick(c_NK), rng=rng)
    cosine = defense.alignment(z_NK, x_NCHW)
    assert cosine is not None
    return cosine, float((z_NK - c_NK).double().norm(dim=1).mean())


def final_alignment(
    scene: Scene,
    *,
    features: str = "log",
    scope: str = "sample",
    budgets: Iterable[float] = BUDGETS,
    n: int = 256,
    rounds: int = 10,
    variants: Mapping[str, Mapping[str, Any]] = VARIANTS,
) -> list[dict[str, Any]]:
    """One row per budget: cosine of clean vectors, after the random start, and after each variant's rounds.

    Args:
        scene: a prepared scene; its substitute is trained or read from the store.
        features: the substitute's input features. scope: LPA's scope. n: number of attack images. rounds: R.
        variants: name -> the fields of LPA's configuration that it changes.
    """
    x = scene.split.attack_train.x_NCHW[:n].to(scene.device)
    c = scene.clean["attack_train"][:n].to(scene.device)
    rows = []
    for budget in budgets:
        row: dict[str, Any] = dict(
            dataset=scene.config.dataset, seed=scene.config.seed, features=features, scope=scope,
            budget=budget, rounds=rounds, n=len(c),
        )  # fmt: skip
        for name, changes in {"start": {"rounds": 0}, **variants}.items():
            settings: dict[str, Any] = dict(
                budget=budget, rounds=rounds, scope=scope, substitute_features=features, search="descent"
            )
            defense = LPAConfig(**{**settings, **changes}).make()
            defense.fit(scene.view(), rng=generator(scene.config.seed, "benchmark"))
            row[name], row[f"{name} distortion"] = outcome(defense, c, x)
            row["clean"] = defense.alignment(c, x)
        rows.append(row)
    return rows


def change_of_gain(rows: Sequence[Mapping[str, Any]], variant: str) -> tuple[float, float, float]:
    """A variant's advantage over ``exact``, as a share of the gain of ``exact`` over the random start.

    Each run (dataset, seed) counts once, by its mean over budgets.

    Args:
        rows: from :func:`final_alignment`, with one scope and at least two runs.
        variant: one of their columns.

    Returns:
        Mean and 95 % Student-t bounds over the runs.
    """
    runs: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        runs[row["dataset"], row["seed"]].append(row)
    more = [statistics.fmean(r[variant] - r["exact"] for r in run) for run in runs.values()]
    gain = statistics.fmean(statistics.fmean(r["exact"] - r["start"] for r in run) for run in runs.values())
    found = mean_interval(more)
    assert found.low is not None
    assert found.high is not None
    return found.mean / gain, found.low / gain, found.high / gain


@dataclass(frozen=True)
class Arguments:
    """Final cosine of objectives and engines on trained substitutes, at equal distortion."""

    datasets: tuple[str, ...] = ("digits", "mnist")
    """data sets, at the quick scale"""
    seeds: int = 3
    """number of seeds per data set"""
    first_seed: int = 0
    """first seed"""
    features: tuple[str, ...] = ("log", "raw")
    """input features of the substitute"""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """variants to measure; exact is always included"""
    data_root: str | None = None
    """data folder, in torchvision's layout"""
    store: Path = Path("results/objectives")
    """folder for artifacts and objectives.parquet"""


def main() -> None:
    """Measure all scenes; print a line of Markdown per row, then how much each variant changes the gain."""
    chosen = tyro.cli(Arguments, prog="study/bench/objectives.py")
    torch.set_num_threads(1)
    variants = {k: VARIANTS[k] for k in VARIANTS if k == "exact" or k in chosen.variants}
    names, rows = ["clean", "start", *variants], list[dict[str, Any]]()
    for dataset, seed in itertools.product(chosen.datasets, range(chosen.seeds)):
        config = scaled(dataset, "quick", seed=chosen.first_seed + seed)
        scene = prepare(config, ArtifactStore(Storage(chosen.store)), data_root=chosen.data_root)
        for features, scope in itertools.product(chosen.features, ("sample", "batch")):
            for row in final_alignment(scene, features=features, scope=scope, variants=variants):
                rows.append(row)
                what = [row[k] for k in ("dataset", "seed", "features", "scope", "budget")]
                print("|", *what, *(f"{row[k]:.5f}" for k in names), "|", sep=" | ", flush=True)
        pd.DataFrame(rows).to_parquet(chosen.store / "objectives.parquet", index=False)
    for features, scope, variant in itertools.product(chosen.features, ("sample", "batch"), variants):
        mine = [r for r in rows if r["features"] == features and r["scope"] == scope]
        if variant != "exact" and len({(r["dataset"], r["seed"]) for r in mine}) > 1:
            mean, low, high = change_of_gain(mine, variant)
            print(f"{features} features, {scope} scope, {variant}: {mean:+.1%} [{low:+.1%}, {high:+.1%}]")


if __name__ == "__main__":
    main()
