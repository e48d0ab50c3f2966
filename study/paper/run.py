"""Runs the paper's experiments as trials of the study: workers, executors and records of ``pareto.py``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mipoison.artifacts import source_fingerprint
from mipoison.attacks import by_cost
from mipoison.config import ConfigError
from mipoison.defenses import ANCHORS
from mipoison.episode import versions
from mipoison.splits import describe, make_split
from mipoison.storage import Storage
from study.driver import Executor, Outcome
from study.paper.experiments import Row, trials_of
from study.plain import visible_line
from study.progress import Progress
from study.records import ABOUT, Records
from study.settings import NEWER, StudySettings, differences
from study.spec import TrialResult, TrialSpec
from study.trial import Record, complete, record_loss

FOLDER = "reproduction"
"""Below the storage root: one folder of records a dataset, and the rendered tables and figures."""
NOT_SHARED = ("defenses", "attackers", "sampler", "max_accuracy_drop")
"""Settings of a search, which these experiments are not."""


def records_for(storage: str, folder: str) -> Records:
    """The records in a folder, see ``experiments.folder_of``."""
    return Records(Storage(storage).below(FOLDER), folder)


def shared(settings: StudySettings) -> dict[str, Any]:
    """What later runs into the same folder must share."""
    return {k: v for k, v in settings.shared().items() if k not in NOT_SHARED}


def check_settings(settings: StudySettings, records: Records, resume: bool) -> None:
    """Whether a run's records may be written to with these settings; nothing heavy runs.

    Raises:
        ConfigError: records exist and ``resume`` was not asked for, or they were made with other settings.
    """
    stored = records.read_about()
    if stored is None:
        return
    changed = differences(NEWER | stored["settings"], shared(settings))
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


Missing = dict[str, tuple[str, dict[str, Any], tuple[str, ...]]]
"""Trial -> defense, knobs, attackers."""


def missing(records: Records, rows: Iterable[Row], run: str) -> Missing:
    """Trials that are absent, or lack an attacker or a successful episode: those to be run."""
    out: Missing = {}
    for trial, (defense, knobs, attacks) in trials_of(rows, run).items():
        rows_now = records.read_trial(trial)
        have = {r["attack"] for r in rows_now}
        fine = {a for a in have if all(r["status"] == "ok" for r in rows_now if r["attack"] == a)}
        if not set(attacks) <= fine:
            out[trial] = (defense, knobs, by_cost({*attacks, *have}))
    return out


def run_rows(
    settings: StudySettings, run: str, records: Records, rows: list[Row], executor: Executor, console: Console
) -> None:
    """Run what the rows of one of RUNS lack.

    Finished episodes of an interrupted or narrower run are read back, not repeated.
    """
    todo = missing(records, rows, run)
    scenes = settings.scenes()
    first = scenes[0]
    split = make_split(
        first.dataset,
        auxiliary=first.auxiliary,
        seed=first.seed,
        data_root=settings.data_root,
        limit=first.limit,
    )
    console.print(
        f"{records.study}: {visible_line(describe(split))}", markup=False, highlight=False, soft_wrap=True
    )
    if not todo:
        console.print(f"{records.study}: nothing left to run", highlight=False)
        return
    if records.read_json(ABOUT) is None:
        about = {
            "settings": shared(settings),
            "versions": versions(),
            "source": source_fingerprint(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        records.write_json(ABOUT, about)
    specs = {t: _spec(settings, records, t, *what) for t, what in todo.items()}
    with Progress(console) as progress:
        _run_anchors(records, specs, executor, progress)
        rest = [spec for name, spec in specs.items() if name not in ANCHORS]
        progress.begin(len(rest), 0, 0, executor.lanes)
        queue, began = iter(rest), dict[str, float]()

        def ask() -> TrialSpec | None:
            spec = next(queue, None)
            if spec is not None:
                began[spec.trial] = time.monotonic()
            return spec

        def done(spec: TrialSpec, outcome: Outcome | None, error: str | None) -> None:
            if outcome is None:
                outcome = record_loss(spec, error or "the trial's process was lost")
            progress.finished(time.monotonic() - began[spec.trial], bool(outcome.get("failed")))
            progress.quality(outcome.get("worst_attack_accuracy"), None)

        if rest:
            executor.search(len(rest), ask, done)


def _spec(
    settings: StudySettings,
    records: Records,
    trial: str,
    defense: str,
    knobs: Mapping[str, Any],
    attacks: tuple[str, ...],
) -> TrialSpec:
    earlier = [int(r["attempt"]) for r in records.read_trial(trial)]
    return TrialSpec(
        study=records.study,
        max_accuracy_drop=1.0,  # nothing is searched: no setting is infeasible
        trial=trial,
        attempt=max(earlier, default=-1) + 1,
        defense=defense,
        knobs=dict(knobs),
        attackers=attacks,
        scenes=tuple(scene.flat() for scene in settings.scenes()),
        root=records.storage.root,
        stacked=settings.stacked,
        data_root=None
        if settings.data_root is None
        else str(Path(settings.data_root).expanduser().resolve()),
    )


def _run_anchors(
    records: Records, specs: Mapping[str, TrialSpec], executor: Executor, progress: Progress
) -> None:
    """Label-only and undefended, seed by seed in parallel; written once both are there."""
    wanted = [name for name in ANCHORS if name in specs]
    if not wanted:
        return
    seeds = len(specs[wanted[0]].scenes)
    progress.stage(
        f"preparing victims, evaluators and substitutes of {seeds} seeds; then {', '.join(wanted)}"
    )
    parts = [
        dataclasses.replace(specs[name], scenes=(scene,)) for name in wanted for scene in specs[name].scenes
    ]
    merged = {name: TrialResult([], {}) for name in wanted}
    for part, result in zip(parts, executor.anchors(parts, progress.part), strict=True):
        merged[part.trial].records.extend(result.records)
        if part.scenes[0] == specs[part.trial].scenes[0]:
            merged[part.trial].pictures = result.pictures
    raw: list[Record] = [
        r for name in ANCHORS for r in (merged[name].records if name in merged else records.read_trial(name))
    ]
    for name in wanted:
        complete(specs[name], merged[name], raw)
