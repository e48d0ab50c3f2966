"""Runs the paper's experiments as trials, with the executors, workers and records that a study uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from mipoison.attacks import by_cost
from mipoison.config import ConfigError
from mipoison.data.splits import describe
from mipoison.defenses import ANCHORS
from mipoison.scene import split_of
from mipoison.storage.files import Storage
from study.executors.base import Executor
from study.paper.experiments import PaperRow, trials_of
from study.records.constraints import Constraints
from study.records.store import Records
from study.runtime.plain import visible_line
from study.runtime.progress import Progress
from study.session.callbacks import LiveLine
from study.session.loop import FixedTrials, TrialLoop
from study.session.study import template_of, write_study_file
from study.settings.study_settings import SCENES, StudySettings

FOLDER = "reproduction"
"""Folder below the storage root with one folder of records per run, and the tables and figures."""


def records_for(storage: str, folder: str) -> Records:
    """The records in a run's folder, see ``experiments.folder_of``."""
    return Records(Storage(storage).below(FOLDER), folder)


def check_settings(settings: StudySettings, records: Records, resume: bool) -> None:
    """Check that a run with these settings may add to the records; quick.

    Raises:
        ConfigError: records exist and ``resume`` is False, or they were made with other settings.
    """
    stored = records.read_study_file()
    if stored is None:
        return
    changed = settings.changes(stored["settings"], *SCENES)
    if changed:
        raise ConfigError(
            f"{FOLDER}/{records.study} in {settings.storage} was made with other settings: "
            f"{'; '.join(changed)}"
        )
    if not resume:
        raise ConfigError(
            f"{FOLDER}/{records.study} exists in {settings.storage}: "
            "continue it (or add tables to it) with --resume, or choose another --storage"
        )


@dataclass(frozen=True, kw_only=True)
class MissingTrial:
    """A trial that is still to be run, with these attackers."""

    defense: str
    knobs: Mapping[str, Any]
    attackers: tuple[str, ...]


def missing(records: Records, rows: Iterable[PaperRow], run: str) -> dict[str, MissingTrial]:
    """The trials to run, by name: those that are absent, or lack a successful episode of an attacker."""
    out = {}
    for trial, (defense, knobs, attacks) in trials_of(rows, run).items():
        rows_now = records.read_trial(trial)
        have = {r["attack"] for r in rows_now}
        fine = {a for a in have if all(r["status"] == "ok" for r in rows_now if r["attack"] == a)}
        if not set(attacks) <= fine:
            attackers = by_cost(dict.fromkeys((*attacks, *sorted(have))))
            out[trial] = MissingTrial(defense=defense, knobs=knobs, attackers=attackers)
    return out


def run_rows(
    settings: StudySettings,
    run: str,
    *,
    records: Records,
    rows: list[PaperRow],
    executor: Executor,
    console: Console,
) -> None:
    """Run the trials that a run's rows still need.

    Finished episodes of an interrupted run, or of one with fewer rows, are read back and not repeated.

    Raises:
        StorageError, LostError: see :meth:`study.session.loop.TrialLoop.run`.
    """
    todo = missing(records, rows, run)
    scenes = settings.scenes()
    split = split_of(scenes[0], settings.data_root)
    console.print(
        f"{records.study}: {visible_line(describe(split))}", markup=False, highlight=False, soft_wrap=True
    )
    if not todo:
        console.print(f"{records.study}: nothing left to run", highlight=False)
        return
    write_study_file(records, settings.identity(*SCENES))
    # There is no search: every setting counts as feasible.
    template = dataclasses.replace(
        template_of(settings, records), constraints=Constraints(max_accuracy_drop=1.0)
    )
    specs = {}
    for trial, wanted in todo.items():
        earlier = [int(record["attempt"]) for record in records.read_trial(trial)]
        attempt = max(earlier, default=-1) + 1
        specs[trial] = template.spec(
            trial, wanted.defense, wanted.knobs, attempt=attempt, attackers=wanted.attackers
        )
    anchors = [specs[name] for name in ANCHORS if name in specs]
    trials = [spec for name, spec in specs.items() if name not in ANCHORS]
    callbacks = [LiveLine(Progress(console), shared_classes=settings.auxiliary == "same")]
    TrialLoop(executor, callbacks).run(FixedTrials(records, anchors, trials), len(trials))
