"""After the search: how far the strongest cheap attacker's error would fall with ever more images of its own.

For the anchors and the frontier's settings that are not shown to leak, which are what a reader chooses from.
What an extrapolation says bounds nothing; see :mod:`mipoison.metrics.learning_curve`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from mipoison.defenses import ANCHORS
from mipoison.metrics.learning_curve import learning_curve
from mipoison.metrics.machine import versions
from mipoison.randomness import role_seed
from mipoison.storage.files import StorageError, storage_failure
from study.analysis.verdicts import verdict_table
from study.executors.base import Executor
from study.records.curves import CURVES, FACES, curves_bytes, read_curves
from study.records.flat import knobs_of
from study.runtime.plain import visible_line
from study.runtime.progress import Progress
from study.session.study import Study
from study.trial.curves import CurveErrors, measure_curve
from study.trial.spec import TrialSpec

ATTACKER = "kernel"
"""The strongest of the default attackers that asks about its own images alone."""


def curve_rows(trial: str, found: CurveErrors) -> list[dict[str, Any]]:
    """Fit the law to what was measured of a setting: one row of the file per face."""
    rows = []
    for face, errors_SN in found.errors.items():
        rng = np.random.default_rng(role_seed(found.seeds[0], "learning curve", trial, face))
        curve = learning_curve(found.sizes, errors_SN, rng=rng, seed_N=found.seed_of(face))
        rows.append(
            {
                "trial": trial,
                "face": face,
                "attack": found.attack,
                "seeds": list(found.seeds),
                "images": errors_SN.shape[1],
                "sizes": list(found.sizes),
                "errors": errors_SN.mean(axis=1).tolist(),
                "limit": curve.limit,
                "limit_low": curve.low,
                "limit_high": curve.high,
                "gain": curve.gain,
                "gain_low": curve.gain_low,
                "gain_high": curve.gain_high,
                "scale": curve.scale,
                "exponent": curve.exponent,
                "versions": versions(),
            }
        )
    return rows


def not_leaking(front: pd.DataFrame, episodes: pd.DataFrame, margin: float) -> pd.DataFrame:
    """The frontier without the settings that are shown to leak: that more images would find more in them
    changes nothing.

    Args:
        front: the frontier. episodes: the study's. margin: excess leakage that is accepted.
    """
    verdicts = verdict_table(episodes, margin=margin)
    return front[~front["trial"].isin(verdicts.loc[verdicts["verdict"] == "leaks", "trial"])]


def missing_curves(study: Study, front: pd.DataFrame, known: set[str]) -> list[TrialSpec]:
    """The anchors, then these settings, without those whose curve is known."""
    spec = study.template.spec
    trials = {name: spec(name, name, {}, attackers=(ATTACKER,)) for name in ANCHORS}
    for _, row in front.iterrows():
        trial, defense = str(row["trial"]), str(row["defense"])
        trials.setdefault(trial, spec(trial, defense, knobs_of(row), attackers=(ATTACKER,)))
    return [spec for trial, spec in trials.items() if trial not in known]


def write_learning_curves(
    study: Study, front: pd.DataFrame, executor: Executor, progress: Progress, say: Callable[[str], None]
) -> None:
    """Measure the curves that the study's file lacks, and write it.

    A setting whose curve cannot be measured is one line, and a resumed study tries it again. What was
    measured before an interruption is kept.

    Args:
        front: settings that get a curve, beside the anchors. say: prints a line.

    Raises:
        StorageError: the storage failed or the lease was lost.
    """
    rows = read_curves(study.records.storage, study.records.study)
    faces = Counter(row["trial"] for row in rows)
    rows = [row for row in rows if faces[row["trial"]] == len(FACES)]
    specs = missing_curves(study, front, {row["trial"] for row in rows})
    if not specs:
        return
    known = len(rows)
    try:
        with progress:
            text = f"learning curves of {len(specs)} settings: {ATTACKER}, with ever more images"
            progress.note(text, 0, len(specs))
            for i, (spec, found) in enumerate(zip(specs, executor.each(measure_curve, specs), strict=True)):
                try:
                    if isinstance(found, Exception):
                        raise found
                    rows += curve_rows(spec.trial, found)
                except Exception as error:
                    if (reason := storage_failure(error)) is not None:
                        raise StorageError(reason) from error
                    cause = getattr(error, "cause", None) or error  # Ray's own text is the remote traceback
                    why = f"{type(cause).__name__}: {cause}"
                    say(f"no learning curve of {spec.trial}: {visible_line(why, 200)}")
                progress.part(i + 1, len(specs))
    finally:
        if len(rows) > known:
            study.check()
            study.records.storage.write(f"{study.records.study}/{CURVES}", curves_bytes(rows))
