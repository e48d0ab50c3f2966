"""The frontier once more on fresh seeds: victims, splits and attackers that the search never saw.

A frontier picks the luckiest of many noisy settings. What it loses on seeds that had no part in picking it is
its selection bias, and both are shown. The fresh episodes are a study of their own beside the first,
``<study>.fresh``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mipoison.defenses import ANCHORS, DEFENSES
from mipoison.scene import SceneConfig
from mipoison.storage import StorageError
from study.driver import Executor, Outcome, Study, evaluate_anchors
from study.monitoring import Monitor
from study.records import Records
from study.spec import TrialSpec
from study.trial import record_loss


def fresh_scenes(study: Study, seeds: int) -> tuple[SceneConfig, ...]:
    """Scenes on the seeds that follow the search's."""
    settings = study.settings
    later = dataclasses.replace(settings, first_seed=settings.first_seed + settings.seeds, seeds=seeds)
    return later.scenes()


def reevaluate(study: Study, front: pd.DataFrame, executor: Executor, seeds: int) -> pd.DataFrame:
    """Run the frontier's settings and the anchors on fresh seeds; returns the fresh episodes.

    Trials keep their ids. Settings finished by an earlier run are read back.
    """
    scenes = fresh_scenes(study, seeds)
    records = Records(study.storage, f"{study.records.study}.fresh")
    finished = records.read_trials() if study.lease is None else records.take_in()[0]
    again = dataclasses.replace(
        study, records=records, finished=finished, open={}, failed=set(), cut_short=False, monitor=Monitor()
    )
    with study.progress:
        evaluate_anchors(again, executor, scenes)
        specs = [
            again.spec(str(row["trial"]), 0, str(row["defense"]), knobs_of(row), scenes)
            for _, row in front.iterrows()
            if row["defense"] not in ANCHORS and row["trial"] not in finished
        ]
        study.progress.begin(len(specs), 0, 0, executor.lanes)
        queue, began = iter(specs), dict[str, float]()

        def ask() -> TrialSpec | None:
            spec = None if again.trouble else next(queue, None)
            if spec is not None:
                began[spec.trial] = time.monotonic()
            return spec

        def done(spec: TrialSpec, outcome: Outcome | None, error: str | None) -> None:
            if outcome is None and error and StorageError.__name__ in error:
                again.trouble = again.trouble or error.partition(": ")[2]
                return
            if outcome is None:
                outcome = record_loss(spec, error or "the trial's process was lost")
            study.progress.finished(time.monotonic() - began[spec.trial], bool(outcome.get("failed")))
            study.progress.quality(outcome.get("worst_attack_accuracy"), None)

        if specs:
            executor.search(len(specs), ask, done)
        again.check()
    return records.read()


def knobs_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A setting's knobs, from a row with ``defense`` and ``defense.<knob>``; of missing ones, those that are
    younger than the record are as they were then (``Config.BEFORE``), and the others are left out."""
    config = DEFENSES[str(row["defense"])]
    names, out = config.field_kinds(), dict[str, Any](config.BEFORE)
    for name, (kind, _) in names.items():
        value = row.get(f"defense.{name}")
        if value is not None and not pd.isna(value):
            out[name] = kind(value)
    return out
