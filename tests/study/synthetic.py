"""Synthetic studies of any size: records of the real schema, every column filled, one Parquet file a trial.

Nothing is trained. The numbers follow what real studies show (more distortion, more error of attackers, up
to a floor that the label alone gives), with noise over seeds and attackers, and a handful of trials failed or
cut short. ``python -m tests.study.synthetic FOLDER TRIALS`` writes one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mipoison.attacks import ATTACKS
from mipoison.config import Knob
from mipoison.defenses import ANCHORS, DEFENSES
from mipoison.metrics.leakage import PERCENTILE_COLUMNS
from mipoison.scene import split_of
from study.records.schema import episode_schema
from study.records.status import PRUNED
from study.search.space import searchable
from study.settings.study_settings import StudySettings

ATTACKERS = ("passive", "raw", "mismatched-architecture", "rounding", "label-only", "ridge", "mlp")
FLOOR, MEAN_IMAGE = 0.05, 0.074
"""Errors of label-only's worst attacker and of the mean image."""
FAILED, CUT_SHORT = 97, 11
"""Every so manieth trial has a failed episode, or was cut after the first four attackers."""
CONSTANT: dict[str, Any] = {
    "dataset": "digits",
    "auxiliary": "same",
    "victim": "victim-8cae880b4d86",
    "device": "cpu (x86_64)",
    "versions": "mipoison 0.1.0, torch 2.15.0, python 3.11.7",
    "queries": 360,
    "n_classes": 5,
    "stacked_members": 1,
    "attempt": 0,
    "model_accuracy": 0.98,
    "mean_image_error": MEAN_IMAGE,
}


def settings(folder: Path, trials: int, *, resume: bool = True) -> StudySettings:
    """The settings of the study in ``folder`` (its parent is the storage root)."""
    return StudySettings(
        dataset="digits",
        defenses=tuple(searchable()),
        attackers=ATTACKERS,
        trials=trials,
        seeds=3,
        name=folder.name,
        storage=str(folder.parent),
        resume=resume,
    )


def draw(rng: np.random.Generator, knob: Knob) -> Any:
    """A value of a knob, as the random sampler draws it."""
    if knob.choices is not None:
        return knob.choices[int(rng.integers(len(knob.choices)))]
    assert knob.low is not None
    assert knob.high is not None
    low, high = np.log([knob.low, knob.high]) if knob.log else (knob.low, knob.high)
    value = float(rng.uniform(low, high))
    value = float(np.clip(np.exp(value) if knob.log else value, knob.low, knob.high))
    return round(value) if knob.integer else value


def plan(trials: int, rng: np.random.Generator) -> list[tuple[str, str, dict[str, Any]]]:
    """(trial, defense, knobs): the anchors, then the defenses in turn with random knobs."""
    defenses = searchable()
    out: list[tuple[str, str, dict[str, Any]]] = [(name, name, {}) for name in ANCHORS]
    for i in range(1, trials + 1):
        defense = defenses[i % len(defenses)]
        knobs = {name: draw(rng, knob) for name, knob in DEFENSES[defense].KNOBS.items()}
        out.append((f"t{i:04d}-{defense}", defense, DEFENSES[defense].from_flat(knobs).flat()))
    return out


def episodes(
    trials: list[tuple[str, str, dict[str, Any]]],
    seeds: int,
    attackers: tuple[str, ...],
    rng: np.random.Generator,
    study: str = "s",
) -> pa.Table:
    """The records of the trials, seed by seed and attacker by attacker, of the schema that a study writes."""
    per_trial = seeds * len(attackers)
    n = len(trials) * per_trial
    trial = np.repeat(np.arange(len(trials)), per_trial)
    seed = np.tile(np.repeat(np.arange(seeds), len(attackers)), len(trials))
    attack = np.tile(np.arange(len(attackers)), len(trials) * seeds)

    strength = rng.uniform(0, 1, len(trials))  # of the defense: 0 as undefended, 1 as label-only
    strength[[i for i, (_, defense, _) in enumerate(trials) if defense == "none"]] = 0.0
    strength[[i for i, (_, defense, _) in enumerate(trials) if defense == "label-only"]] = 1.0
    per_seed = np.repeat(rng.normal(0, 0.01, len(trials) * seeds), len(attackers))
    distortion = np.where(strength[trial] > 0, 0.3 * strength[trial] ** 2 * np.exp(per_seed), 0.0)
    weakness = rng.uniform(0, 0.01, (len(trials), len(attackers)))[trial, attack]
    error = 0.02 + (FLOOR - 0.02) * strength[trial] + weakness + rng.normal(0, 5e-4, n)
    floor = np.array([error[(trial == 0) & (seed == s)].min() for s in range(seeds)])[seed]
    accuracy = np.clip(1 - 0.3 * strength[trial] - 5 * weakness + rng.normal(0, 0.01, n), 0, 1)
    drop = np.where(rng.uniform(size=len(trials)) < 0.2, 0.05, 0.004)[trial] * (strength[trial] > 0)

    failed = (trial % FAILED == FAILED - 1) & (attack == len(attackers) - 1) & (seed == 0)
    late = (trial % CUT_SHORT == CUT_SHORT - 1) & (attack >= (len(attackers) + 1) // 2)
    gone = failed | late
    status = np.where(failed, "failed", np.where(late, PRUNED, "ok")).astype(object)
    messages = np.where(failed, "ValueError: did not converge", np.where(late, "not run", None))

    known: dict[str, Any] = CONSTANT | {
        "episode_id": np.char.add("e", np.arange(n).astype(str)).astype(object),
        "study": study,
        "trial": np.array([name for name, _, _ in trials], dtype=object)[trial],
        "defense": np.array([defense for _, defense, _ in trials], dtype=object)[trial],
        "attack": np.array(attackers, dtype=object)[attack],
        "split": np.array([f"split{s}" for s in range(seeds)], dtype=object)[seed],
        "status": status,
        "error": messages,
        "seed": seed,
        "scene.seed": seed,
    }
    measured: dict[str, Any] = {
        "protected_accuracy": 0.98 - drop,
        "confidence_distortion": distortion,
        "attack_set_distortion": distortion,
        "attack_accuracy": accuracy,
        "attack_accuracy_test": accuracy,
        "reconstruction_error": error,
        "reconstruction_error_test": error,
        "excess_leakage": 1 - error / floor,
        "excess_attack_accuracy": accuracy - 0.7,
    }
    measured |= {
        name: error * (0.3 + 1.7 * i / (len(PERCENTILE_COLUMNS) - 1))
        for i, name in enumerate(PERCENTILE_COLUMNS)
    }
    by_trial = {f"defense.{k}" for _, _, knobs in trials for k in knobs}
    by_attack = [{f"attack.{k}": v for k, v in ATTACKS[a].flat().items()} for a in attackers]
    scene = {f"scene.{k}": v for k, v in settings(Path("/s/s"), 1).scenes()[0].flat().items()}
    columns = []
    for field in episode_schema():
        name = field.name
        if name in measured:
            values = np.asarray(measured[name], dtype=float)
            column = pa.array(values, field.type, mask=gone)
        elif name in known:
            value = known[name]
            column = pa.array(value if isinstance(value, np.ndarray) else [value] * n, field.type)
        elif name in by_trial:
            knobs = [flat.get(name.removeprefix("defense.")) for _, _, flat in trials]
            column = pa.array(knobs, field.type).take(pa.array(trial))
        elif any(name in flat for flat in by_attack):
            column = pa.array([flat.get(name) for flat in by_attack], field.type).take(pa.array(attack))
        elif name.startswith("check."):
            column = pa.array(rng.uniform(size=n) < 0.02, field.type, mask=gone)
        elif name in scene:
            column = pa.array([scene[name]] * n, field.type)
        elif name.startswith(("defense.", "attack.", "scene.")) or pa.types.is_string(field.type):
            column = pa.nulls(n, field.type)
        elif pa.types.is_integer(field.type):
            column = pa.array(rng.integers(1, 100, n), field.type, mask=gone)
        else:
            column = pa.array(rng.uniform(0, 1, n), field.type, mask=gone)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=episode_schema())


def write_study(folder: Path, trials: int, *, seed: int = 0) -> None:
    """A finished study of so many trials (and the anchors), as a study writes it."""
    rng = np.random.default_rng(seed)
    planned = plan(trials, rng)
    table = episodes(planned, 3, ATTACKERS, rng, folder.name)
    (folder / "episodes").mkdir(parents=True)
    (folder / "trials").mkdir()
    chosen = settings(folder, trials)
    content = split_of(chosen.scenes()[0], chosen.data_root).content
    about = {"settings": chosen.identity(), "content": content, "started": "2026-11-25T00:00:00Z"}
    (folder / "study.json").write_text(json.dumps(about))
    rows = len(table) // len(planned)
    for i, (trial, defense, knobs) in enumerate(planned):
        pq.write_table(table.slice(i * rows, rows), folder / "episodes" / f"{trial}.a0.parquet")
        if defense not in ANCHORS:
            spec = {"defense": defense, "knobs": knobs, "attempt": 0}
            (folder / "trials" / f"{trial}.json").write_text(json.dumps(spec))


if __name__ == "__main__":
    write_study(Path(sys.argv[1]), int(sys.argv[2]))
