"""A study from its settings to its report, whatever executes the trials.

Parquet is the record of truth: what is finished, what the search has learnt and the frontier are read from
there, so a resumed study needs nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd
from rich.console import Console

from mipoison.artifacts import source_fingerprint
from mipoison.attacks import by_cost
from mipoison.defenses import ANCHORS
from mipoison.episode import versions
from mipoison.scene import SceneConfig
from mipoison.storage import Storage, StorageError
from study import signals
from study.cut import CUT, Point, worst_point
from study.frontier import frontier_table
from study.lock import Lease
from study.monitoring import Monitor
from study.progress import Progress
from study.quality import quality
from study.records import ABOUT, Advanced, Records, unheard
from study.search import Search
from study.settings import StudySettings
from study.spec import TrialResult, TrialSpec
from study.tracking import Finished, Trackers
from study.trial import Outcome, Record, complete, outcomes_of, record_loss

REPEATED_SUGGESTIONS = 60
"""So many suggestions in a row of what is known or under way: the space has no more settings to offer."""
Ask = Callable[[], TrialSpec | None]
Done = Callable[[TrialSpec, Outcome | None, str | None], None]


class Executor(Protocol):
    """Where trials run.

    Attributes:
        lanes: trials at once.
    """

    lanes: int

    def anchors(self, specs: list[TrialSpec], told: Advanced = unheard) -> list[TrialResult]:
        """Prepare the specs' scenes (trained parts go into the artifact store), then run the trials.

        Nothing is written but artifacts; results in order. ``told`` hears how many parts are done of how
        many, where that is known.
        """
        ...

    def search(self, n: int, ask: Ask, done: Done) -> None:
        """Ask for n trials, execute each, say when it is done (its outcome, or the error that lost it).

        Ends early where there is nothing left to ask for (None).
        """
        ...

    def close(self) -> None:
        """Let go of what was started for the study."""
        ...


@dataclass(frozen=True)
class Open:
    """A running trial: its number in the search, its setting's digest, when it began (monotonic seconds)."""

    number: int
    digest: str
    began: float


@dataclass
class Study:
    """A study under way.

    Attributes:
        finished: trial -> its records. unfinished: trials that were started and not finished: name, attempt,
            setting.
        numbers: counts new trials. known: digest of a setting -> its outcome.
        outcomes: trial -> its outcome.
        open: the running trials.
        content: what identifies its images, None where nobody asked (tests).
        lease: this driver's right to the study, None where nobody else can come (tests).
        trouble: why the storage ends the study, None while it works.
        cut_short: whether trials that the label-only anchor dominates are cut short.
        monitor: told of everything that finishes.
        failed: finished trials with a failed episode.
        trackers: copies for other tools. earlier: trials that were finished before this run.
    """

    settings: StudySettings
    storage: Storage
    records: Records
    console: Console
    progress: Progress
    search: Search
    finished: dict[str, Sequence[Record]]
    unfinished: list[tuple[str, int, Mapping[str, Any]]]
    numbers: Iterator[int]
    known: dict[str, Outcome] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    open: dict[str, Open] = field(default_factory=dict)
    cut_short: bool = True
    monitor: Monitor = field(default_factory=Monitor)
    failed: set[str] = field(default_factory=set)
    trackers: Trackers = field(default_factory=lambda: Trackers({}, print))
    earlier: list[Finished] = field(default_factory=list)
    content: str | None = None
    lease: Lease | None = None
    trouble: str | None = None

    def __post_init__(self) -> None:
        for trial, rows in self.finished.items():
            self._count(trial, rows)

    def finish(self, trial: str, attempt: int, made: int = 0, reused: int = 0) -> None:
        """Read a finished trial's records back and count them."""
        rows = self.finished[trial] = self.records.read_trial(trial, attempt)
        self._count(trial, rows)
        self.monitor.finished(rows, made, reused)

    def _count(self, trial: str, rows: Sequence[Record]) -> None:
        if _is_failure(rows) and trial not in ANCHORS:
            self.failed.add(trial)
        else:
            self.failed.discard(trial)

    def check(self) -> None:
        """StorageError if the study cannot go on: its storage failed, or its lease is lost."""
        reason = self.trouble or (self.lease.lost if self.lease else None)
        if reason is not None:
            raise StorageError(reason)

    def floor(self) -> Point | None:
        """The label-only anchor's objectives, once it has faced every attacker."""
        return worst_point(self.finished.get(ANCHORS[0], [])) if self.cut_short else None

    def spec(
        self,
        trial: str,
        attempt: int,
        defense: str,
        knobs: Mapping[str, Any],
        scenes: tuple[SceneConfig, ...],
    ) -> TrialSpec:
        """A trial's plain description."""
        s = self.settings
        return TrialSpec(
            study=self.records.study,
            max_accuracy_drop=s.max_accuracy_drop,
            trial=trial,
            attempt=attempt,
            defense=defense,
            knobs=dict(knobs),
            attackers=by_cost(s.attackers),
            floor=None if defense in ANCHORS else self.floor(),
            scenes=tuple(scene.flat() for scene in scenes),
            root=self.storage.root,
            stacked=s.stacked,
            data_root=None if s.data_root is None else str(s.data_root.expanduser().resolve()),
        )


def run_study(study: Study, executor: Executor) -> pd.DataFrame:
    """Prepare, evaluate the anchors, search; returns all episodes."""
    settings = study.settings
    if (
        study.records.read_json(ABOUT) is None
    ):  # not before an executor is there: a refused study leaves nothing
        study.records.write_json(
            ABOUT,
            {
                "settings": settings.shared(),
                "content": study.content,
                "command": sys.argv[1:],
                "versions": versions(),
                "source": source_fingerprint(),
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )
    for rows in study.finished.values():  # a resumed study counts from its records
        study.monitor.finished(rows)
    for finished in study.earlier:
        study.trackers.finished(finished)
    with study.progress:
        evaluate_anchors(study, executor, settings.scenes())
        done = [t for t in study.finished if t not in ANCHORS]
        left = max(0, settings.trials - len(done))
        study.progress.begin(len(done) + left, len(done), len(study.failed), executor.lanes)
        _show_quality(study)
        _show_trials(study)
        if left > 0:
            executor.search(
                left, lambda: _ask(study), lambda spec, outcome, error: _done(study, spec, outcome, error)
            )
    study.check()
    return study.records.read()


def evaluate_anchors(study: Study, executor: Executor, scenes: tuple[SceneConfig, ...]) -> None:
    """Label-only and undefended, seed by seed in parallel; written once both are complete, floor first."""
    missing = [name for name in ANCHORS if name not in study.finished]
    if not missing:
        return
    study.progress.stage(
        f"preparing victims, evaluators and substitutes of {len(scenes)} seeds; "
        f"then the anchors: {', '.join(missing)}"
    )
    specs = [study.spec(name, 0, name, {}, (scene,)) for name in missing for scene in scenes]
    results = executor.anchors(specs, study.progress.part)
    merged: dict[str, TrialResult] = {name: TrialResult([], {}) for name in missing}
    for spec, result in zip(specs, results, strict=True):
        merged[spec.trial].records.extend(result.records)
        merged[spec.trial].count(result.made, result.reused)
        if spec.scenes[0]["seed"] == scenes[0].seed:
            merged[spec.trial].pictures = result.pictures
    raw = [r for name in ANCHORS for r in (merged[name].records if name in merged else study.finished[name])]
    for name in missing:
        complete(study.spec(name, 0, name, {}, scenes), merged[name], raw)
        study.finish(name, 0, merged[name].made, merged[name].reused)


def _ask(study: Study) -> TrialSpec | None:
    """The next trial, written down before it starts; None if the space seems exhausted.

    Settings that were evaluated before are answered from memory.
    """
    if study.trouble or (study.lease and study.lease.lost):
        return None  # what runs may end; run_study says why
    signals.check()
    for _ in range(REPEATED_SUGGESTIONS):
        proposal = study.search.ask()
        digest = proposal.config.digest()
        running = {opened.digest for opened in study.open.values()}
        if digest not in study.known and digest not in running:
            break
        study.search.tell(proposal.number, study.known.get(digest))
    else:
        return None
    knobs = proposal.config.flat()
    trial, attempt = None, 0
    for i, (name, tried, stored) in enumerate(study.unfinished):
        if stored["defense"] == proposal.defense and dict(stored["knobs"]) == knobs:
            trial, attempt = name, tried + 1
            del study.unfinished[i]
            break
    trial = trial or f"t{next(study.numbers):04d}-{proposal.defense}"
    spec = study.spec(trial, attempt, proposal.defense, knobs, study.settings.scenes())
    study.records.write_json(
        f"trials/{trial}.json", {"defense": spec.defense, "knobs": dict(spec.knobs), "attempt": attempt}
    )
    study.open[trial] = Open(proposal.number, digest, time.monotonic())
    _show_trials(study)
    return spec


def _done(study: Study, spec: TrialSpec, outcome: Outcome | None, error: str | None) -> None:
    """A trial ended; a lost one leaves records that say so, unless the storage was what failed."""
    opened = study.open.pop(spec.trial)
    if outcome is None and error and StorageError.__name__ in error:
        study.trouble = study.trouble or error.partition(": ")[2]
        return  # not finished: it runs again when the study is resumed
    if outcome is None:
        outcome = record_loss(spec, error or "the trial's process was lost")
    made, reused = (int(outcome.get(f"artifacts_{what}") or 0) for what in ("made", "reused"))
    study.finish(spec.trial, spec.attempt, made, reused)
    study.search.tell(opened.number, outcome)
    study.known[opened.digest] = study.outcomes[spec.trial] = outcome
    study.progress.finished(time.monotonic() - opened.began, bool(outcome.get("failed")))
    study.trackers.finished(
        Finished(spec.trial, spec.defense, spec.knobs, study.finished[spec.trial], outcome)
    )
    _show_quality(study)
    _show_trials(study)


def _is_failure(rows: Sequence[Record]) -> bool:
    return any(r["status"] == "failed" for r in rows)


def _show_quality(study: Study) -> None:
    """Best worst case and hypervolume of what is finished."""
    drop = study.settings.max_accuracy_drop
    new = {trial: rows for trial, rows in study.finished.items() if trial not in study.outcomes and rows}
    study.outcomes |= outcomes_of(new, drop)
    if study.outcomes:
        anchors = [row for name in ANCHORS for row in study.finished.get(name, [])]
        shown = quality(study.outcomes.values(), anchors, drop)
        study.progress.quality(*shown)
        study.monitor.quality(*shown)


def _show_trials(study: Study) -> None:
    """How many trials are planned, done, failed and running, for the monitor."""
    done = len(study.finished) - sum(name in study.finished for name in ANCHORS)
    study.monitor.trials(max(study.settings.trials, done), done, len(study.failed), len(study.open))


def write_frontier(study: Study, episodes: pd.DataFrame) -> pd.DataFrame:
    """``frontier.parquet``: a pure function of the episode records."""
    frontier = frontier_table(episodes, study.settings.max_accuracy_drop)
    study.storage.write(f"{study.records.study}/frontier.parquet", frontier.to_parquet(index=False))
    return frontier


def failed_share(episodes: pd.DataFrame) -> float:
    """Share of failed episodes."""
    return float((episodes["status"] == "failed").mean()) if len(episodes) else 0.0


def cut_share(episodes: pd.DataFrame) -> tuple[int, int]:
    """Settings that were cut short, and the episodes that this saved."""
    cut = episodes[episodes["status"] == CUT]
    return int(cut["trial"].nunique()), len(cut)


__all__ = [
    "Executor",
    "Outcome",
    "Study",
    "cut_share",
    "evaluate_anchors",
    "failed_share",
    "run_study",
    "write_frontier",
]
