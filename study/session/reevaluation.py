"""Evaluate the frontier, and what is recommended, again on held-out seeds.

Their victims, splits and attackers are none that the search saw.

A frontier selects the best of many noisy measurements, so it looks better than it is. The difference to the
held-out seeds is this selection bias; reports show both. The held-out episodes are stored as a study of their
own, ``<study>.fresh``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mipoison.defenses import ANCHORS
from mipoison.scene import SceneConfig
from study.executors.base import Executor
from study.records.flat import knobs_of
from study.records.store import Records
from study.session.callbacks import Callback
from study.session.loop import FixedTrials, TrialLoop
from study.session.study import Study
from study.settings.study_settings import StudySettings


def held_out_scenes(settings: StudySettings, seeds: int) -> tuple[SceneConfig, ...]:
    """The scenes on the seeds that follow those of the search."""
    later = dataclasses.replace(settings, first_seed=settings.first_seed + settings.seeds, seeds=seeds)
    return later.scenes()


def reevaluate(
    study: Study,
    settings: Sequence[Mapping[str, Any]],
    executor: Executor,
    seeds: int,
    callbacks: Sequence[Callback] = (),
) -> pd.DataFrame:
    """Run these settings and the anchors on held-out seeds; returns their episodes.

    Trials keep their ids and are never pruned. Settings that an earlier run finished are not run again. Those
    that were cut are left out: what the search measured of them is a bound, and nothing to compare with.

    Args:
        settings: rows of the search's ``configuration_table``: of its frontier, and what it recommends.
        seeds: how many.

    Raises:
        StorageError, LostError: see :meth:`study.session.loop.TrialLoop.run`.
    """
    records = Records(study.records.storage, f"{study.records.study}.fresh")
    finished = records.read_trials() if study.lease is None else records.read_and_move_damaged()[0]
    template = dataclasses.replace(
        study.template, study=records.study, scenes=held_out_scenes(study.settings, seeds)
    )
    anchors = [template.spec(name, name, {}) for name in ANCHORS if name not in finished]
    trials = [
        template.spec(str(row["trial"]), str(row["defense"]), knobs_of(row))
        for row in settings
        if pd.isna(row["cut"]) or not row["cut"]
        if row["defense"] not in ANCHORS and row["trial"] not in finished
    ]
    TrialLoop(executor, callbacks, study.lease).run(FixedTrials(records, anchors, trials), len(trials))
    return records.read()
