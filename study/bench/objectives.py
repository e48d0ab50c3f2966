"""What an objective or an engine reaches on trained substitutes: final cosine at equal distortion.

The cosine is always the reference engine's. Rows are plain dicts, one a setting.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mipoison.artifacts import ArtifactStore
from mipoison.defenses.lpa import LPA, LPAConfig
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene, prepare, scaled
from mipoison.storage import Storage

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
    """(mean cosine to the target, by the reference; mean l2 distortion) of what a defense releases."""
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
) -> list[dict[str, Any]]:
    """A row a budget: cosine of clean vectors, after the random start alone, and after each variant's rounds.

    Args:
        scene: a prepared scene; its substitute is trained or read from the store.
        features: of the substitute. scope: of LPA. n: queries of D_inv. rounds: R.
    """
    x = scene.split.attack_train.x_NCHW[:n].to(scene.device)
    c = scene.clean["attack_train"][:n].to(scene.device)
    rows = []
    for budget in budgets:
        row: dict[str, Any] = dict(
            dataset=scene.config.dataset, seed=scene.config.seed, features=features, scope=scope,
            budget=budget, rounds=rounds, n=len(c),
        )  # fmt: skip
        variants: dict[str, dict[str, Any]] = {"start": dict(rounds=0), **VARIANTS}
        for name, changes in variants.items():
            settings: dict[str, Any] = dict(
                budget=budget, rounds=rounds, scope=scope, substitute_features=features
            )
            defense = LPAConfig(**{**settings, **changes}).make()
            defense.fit(scene.view(), rng=generator(scene.config.seed, "benchmark"))
            row[name], row[f"{name} distortion"] = outcome(defense, c, x)
            row["clean"] = defense.alignment(c, x)
        rows.append(row)
    return rows


def main(store: str, data_root: str | None, *datasets: str) -> None:
    """Rows of three seeds and both kinds of features, one line of Markdown each."""
    torch.set_num_threads(1)
    for dataset in datasets:
        for seed in range(3):
            scene = prepare(
                scaled(dataset, "quick", seed=seed), ArtifactStore(Storage(Path(store))), data_root=data_root
            )
            for features in ("log", "raw"):
                for scope in ("sample", "batch"):
                    for row in final_alignment(scene, features=features, scope=scope):
                        names = ["clean", "start", *VARIANTS]
                        cosines = " | ".join(f"{row[k]:.5f}" for k in names)
                        lengths = " | ".join(f"{row[f'{k} distortion']:.3g}" for k in VARIANTS)
                        print(
                            f"| {dataset} | {seed} | {features} | {scope} | {row['budget']:g} | {cosines} "
                            f"| {lengths} |",
                            flush=True,
                        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] or None, *sys.argv[3:])
