"""Open a study: start a new one, or continue one from its records."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from mipoison.config import ConfigError
from mipoison.data.splits import Split
from mipoison.defenses import ANCHORS
from mipoison.plugins import missing_plugins
from mipoison.storage.files import Storage
from study.records.flat import knobs_of
from study.records.reading import Unreadable, announce_left_out, fetch, leave_out
from study.records.reading.documents import MAX_JSON_BYTES
from study.records.store import STUDY_FILE, Records
from study.runtime.plain import visible_line
from study.runtime.progress import Progress, busy
from study.search.objectives import OTHER_CLASSES, chosen, default_names
from study.search.pruning import screened_rows
from study.search.sampler import Search
from study.search.space import can_enqueue, parameters, starting_points
from study.session.lease import Lease
from study.session.preconditions import check_extras, read_split, split_lines
from study.session.study import Study, kept_columns, screens
from study.settings.study_settings import Arguments, StudySettings, config_of
from study.trial.run import is_machine_failure, outcomes_of
from study.trial.spec import FinishedTrial, StartedTrial


def open_study(settings: StudySettings, console: Console, held: ExitStack | None = None) -> Study:
    """Create or reopen the study, without any training.

    Args:
        held: holds the study's lease until it is closed; None to take no lease.

    Raises:
        ConfigError, DataError: an extra is missing, the storage cannot be written, the study exists (or, to
            resume, does not), another driver runs it, its settings differ, or the data cannot be read.
    """
    check_extras(settings)
    storage = Storage(settings.storage)
    storage.check_writable()
    name = choose_name(settings, storage)
    records = Records(storage, name)
    lease = None
    if held is not None:
        say = functools.partial(console.print, markup=False, soft_wrap=True)
        lease = held.enter_context(Lease(storage, name, say=say))
    stored = records.read_study_file()
    if stored is not None and (missing := missing_plugins(stored.get("plugins"))):
        raise ConfigError(
            f"study {name!r} uses {', '.join(missing)} of a plug-in, and code that records name is never "
            f"loaded: if you have it and trust it, give it with --plugin{_references(stored['plugins'])}"
        )
    if settings.resume and stored is not None:
        settings = settings.continuing(stored["settings"])
        changed = settings.changes(stored["settings"])
        if changed:
            raise ConfigError(f"--resume with other settings than study {name!r} has: {'; '.join(changed)}")
    elif settings.resume:
        raise ConfigError(
            f"--resume: there is no study {name!r} in {settings.storage}; leave --resume out to start it"
        )
    elif stored is not None:
        raise ConfigError(
            f"study {name!r} exists in {settings.storage}: "
            "continue it with --resume, or choose another --name"
        )
    with busy(console, "reading the images"):
        split = read_split(settings)
    first, *more = map(visible_line, split_lines(settings, split))
    for line in (f"study {name} in {storage.root}: {first}", *more):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    with announce_left_out(functools.partial(console.print, markup=False, soft_wrap=True)):
        study = _load(settings, records, console, lease, stored)
    study.content = split.content
    _check_content(study, stored, split)
    return study


def _references(declared: Mapping[str, Any]) -> str:
    """How the study was told its plug-ins, for a message."""
    told = declared.get("from")
    texts = [visible_line(text, 80) for text in told] if isinstance(told, list) else []
    return f" (the study had: {', '.join(texts)})" if texts else ""


def _check_content(study: Study, stored: Mapping[str, Any] | None, split: Split) -> None:
    """Raise ConfigError if a resumed study's images are not those that it started with. Paths may differ.

    Earlier versions did not store the images' digest; then the first seed's split in the records is compared.
    """
    if stored is None:
        return
    begun, now = stored.get("content"), split.content
    if begun is None:
        rows = (row for rows in study.finished.values() for row in rows if row.get("seed") == split.seed)
        begun, now = next((row["split"] for row in rows if row.get("split")), None), split.fingerprint
    if begun not in (None, now):
        raise ConfigError(
            f"--resume: the images of {split.dataset} are not those that study {study.records.study!r} was "
            f"begun with (content {begun}, now {now}): restore the earlier images, or start a new study with "
            "another --name"
        )


def choose_name(settings: Arguments, storage: Storage) -> str:
    """The given name; else the default name with the next free number, or the latest used one to resume."""
    if settings.name is not None:
        return settings.name
    base, used = settings.default_name(), None
    for i in itertools.count(1):
        name = base if i == 1 else f"{base}-{i}"
        try:
            free = fetch(storage, f"{name}/{STUDY_FILE}", MAX_JSON_BYTES) is None
        except Unreadable:  # the name is taken; the error is reported when the file is read
            free = False
        if free:
            return (used or name) if settings.resume else name
        used = name
    raise AssertionError


def _searched(settings: StudySettings, begun: StartedTrial) -> bool:
    """Whether the search can repeat a setting that was started; if not, reports that it is skipped."""
    fine = can_enqueue(list(settings.defenses), begun.defense, begun.knobs)
    if not fine:
        leave_out(
            f"trials/{begun.trial}.json", f"a setting of {begun.defense} that this study does not search"
        )
    return fine


def objective_names(settings: StudySettings, stored: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The objectives that the settings name, else the default ones of the time when the study was begun.

    Args:
        stored: the content of ``study.json``, None for a new study.
    """
    if settings.objectives is not None:
        return settings.objectives
    older = stored is not None and "objectives" not in stored["settings"]
    return OTHER_CLASSES if older else default_names(settings.auxiliary)


def _load(
    settings: StudySettings,
    records: Records,
    console: Console,
    lease: Lease | None,
    stored: Mapping[str, Any] | None,
) -> Study:
    """Restore the study from its records. With a lease, damaged files are moved to ``damaged/``."""
    if lease is not None:
        with Progress(console) as progress:
            if settings.resume:
                progress.stage("reading what is finished")
            finished, moved = records.read_and_move_damaged(progress.part, kept_columns(settings.constraints))
        for damaged in moved:
            console.print(f"{damaged} cannot be read: moved to damaged/, its trial runs again", markup=False)
    else:
        finished = records.read_trials()
    started = {trial: StartedTrial(trial=trial, **document) for trial, document in records.started().items()}
    # A finished trial whose description is missing or damaged is restored from its records.
    for trial in [t for t in finished if t not in started and t not in ANCHORS]:
        row = records.read_trial(trial)[0]
        started[trial] = StartedTrial(
            trial=trial, defense=row["defense"], knobs=knobs_of(row), attempt=int(row["attempt"])
        )
    ever = {*started, *records.started_names(), *records.attempts()}
    # Trials that failed because of a machine, memory or storage are run again, as another attempt.
    finished = {
        t: rows for t, rows in finished.items() if t in ANCHORS or not any(map(is_machine_failure, rows))
    }
    # A resumed search needs another sampler seed: with the same one it would repeat its suggestions.
    search = Search(
        list(settings.defenses),
        sampler=settings.sampler,
        seed=settings.first_seed + 1000 * len(started),
        objectives=chosen(objective_names(settings, stored)),
        constraints=settings.constraints,
    )
    unfinished = [
        begun
        for trial, begun in sorted(started.items())
        if trial not in finished and trial not in ANCHORS and _searched(settings, begun)
    ]
    outcomes = outcomes_of(finished, settings.constraints, finished.get(ANCHORS[0], ()))
    told = outcomes
    if screens(settings, search):  # of every setting, what screening measured
        screened = {trial: screened_rows(rows) for trial, rows in finished.items()}
        told = outcomes_of(screened, settings.constraints, finished.get(ANCHORS[0], ()))
    resumed, known = [], {}
    for trial, rows in finished.items():
        defense, knobs = trial, {}
        if trial in started:
            defense, knobs = started[trial].defense, dict(started[trial].knobs)
            search.add_finished(defense, knobs, told[trial])
            known[config_of(defense, knobs).digest()] = told[trial]
        resumed.append(
            FinishedTrial(
                trial=trial, defense=defense, knobs=knobs, rows=rows, outcome=told[trial], before=True
            )
        )
    search.enqueue([parameters(begun.defense, begun.knobs) for begun in unfinished])
    search.enqueue(starting_points(search.families))  # known ones are answered without running them again
    return Study(
        settings=settings,
        records=records,
        search=search,
        finished=finished,
        unfinished=unfinished,
        numbers=itertools.count(
            1 + max((int(n) for n in re.findall(r"\bt(\d{1,9})-", " ".join(ever))), default=0)
        ),
        resumed=resumed,
        outcomes=outcomes,
        known=known,
        lease=lease,
    )
