"""Made-up records of small studies."""

from __future__ import annotations

import numpy as np
import pandas as pd

from study.analysis.frontier import (
    configuration_table,
)
from study.records.constraints import Constraints


def record(trial, defense, attack, seed, *, distortion=0.1, error=0.02, accuracy=0.8, drop=0.0, **more):
    return {
        "study": "test", "trial": trial, "episode_id": f"{trial}/{attack}/{seed}", "seed": seed,
        "dataset": "digits", "auxiliary": "same", "scene.limit": None, "scene.seed": seed, "device": "cpu",
        "defense": defense, "attack": attack, "status": "ok", "error": None,
        "confidence_distortion": distortion, "model_accuracy": 0.95, "protected_accuracy": 0.95 - drop,
        "attack_accuracy": accuracy, "reconstruction_error": error, "mean_image_error": 0.05,
        "check.no_better_than_mean_image": error is not None and error > 0.05,
    } | more  # fmt: skip


def failed(row, error="RuntimeError: out of memory"):
    gone = ("attack_accuracy", "reconstruction_error", "confidence_distortion", "protected_accuracy")
    gone += ("check.no_better_than_mean_image",)
    return row | dict.fromkeys(gone) | {"status": "failed", "error": error}


def make_episodes(n_lpa=6, seeds=3, rng_seed=0):
    """A study that looks like one: protection grows with distortion, seeds differ, attackers differ."""
    rng = np.random.default_rng(rng_seed)
    trials = [("none", "none", {}, 0.0), ("label-only", "label-only", {}, 0.35)]
    for i, d in enumerate(np.geomspace(1e-4, 0.5, n_lpa)):
        rounds = int(rng.integers(1, 20))
        knobs = {"budget": 1.2 * d, "rounds": rounds, "step": 0.2, "substitute_features": "log"}
        trials += [(f"t{i:03d}-lpa", "lpa", knobs, d)]
        trials += [(f"t{i:03d}-noise", "noise", {"budget": 1.1 * d}, 1.05 * d)]
    trials += [(f"t10{k}-rounding", "rounding", {"decimals": k}, 0.3 * 10.0**-k) for k in range(1, 5)]
    lfp = {"ratio": 0.05, "threshold": 0.9, "budget": 0.05, "swap": False}
    trials += [("t200-lfp", "lfp", lfp, 0.02)]
    rows = []
    for trial, defense, knobs, d in trials:
        hides = 1.0 if defense == "label-only" else d / (d + 0.01)
        for seed in range(seeds):
            for k, attack in enumerate(ATTACKS):
                error = 0.02 + 0.006 * hides + 0.0004 * seed + 0.0005 * k + 0.0002 * rng.normal()
                accuracy = float(np.clip(0.9 - 0.25 * hides - 0.01 * k + 0.01 * rng.normal(), 0, 1))
                rows.append(
                    record(trial, defense, attack, seed, distortion=d * (1 + 0.01 * seed), error=error)
                    | {"attack_accuracy": accuracy, "protected_accuracy": 0.91 if defense == "lfp" else 0.95}
                    | {f"defense.{name}": value for name, value in knobs.items()}
                )
    return pd.DataFrame(rows)


ATTACKS = ("passive", "raw", "mismatched-architecture")


def table(rows, **bounds):
    return configuration_table(pd.DataFrame(rows), constraints=Constraints(**bounds))


def one_each(points, **more):
    """Settings with one attacker and seed and given (distortion, accuracy, error)."""
    return [
        record(f"t{i:03d}", "noise", "raw", 0, distortion=d, accuracy=a, error=e, **more)
        for i, (d, a, e) in enumerate(points)
    ]


def row_of(settings, trial):
    return settings.set_index("trial").loc[trial]
