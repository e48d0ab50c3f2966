"""The state of a running study: trials asked for, finished trials, and the quality so far."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mipoison.defenses import ANCHORS
from mipoison.metrics.excess import MARGIN
from mipoison.metrics.machine import versions
from mipoison.plugins import declared_plugins
from mipoison.storage.artifacts import source_fingerprint
from mipoison.storage.files import StorageError
from study.analysis.frontier import Reference
from study.analysis.worst_case import NEEDED
from study.records.constraints import TOLERANCE, Constraints
from study.records.store import STUDY_FILE, Records
from study.search.pruning import Point, can_screen, worst_point
from study.search.sampler import Search
from study.session.callbacks import StudyProgress
from study.session.lease import Lease
from study.session.monitoring import STAGES
from study.session.quality import Quality, corner_of, quality
from study.settings.study_settings import StudySettings
from study.trial.measures import MEASURED
from study.trial.run import Outcome, Record
from study.trial.spec import FinishedTrial, StartedTrial, TrialSpec, TrialTemplate

REPEATED_SUGGESTIONS = 60
"""After this many suggestions in a row that are known or running, the search space counts as exhausted."""


def screens(settings: StudySettings, search: Search) -> bool:
    """Whether a study with these settings and this search screens."""
    return settings.screen and can_screen(settings.attackers, search.objectives.values())


def kept_columns(constraints: Constraints) -> tuple[str, ...]:
    """Columns of finished records that a running study keeps in memory: outcomes, failures, metrics."""
    seconds = (f"seconds_{stage}" for stage in STAGES)
    return tuple(dict.fromkeys([*NEEDED, *MEASURED, *constraints.columns, "error", "screened", *seconds]))


@dataclass(frozen=True)
class RunningTrial:
    """A trial between ask and tell: its number in the search, and the digest of its setting."""

    number: int
    digest: str


@dataclass
class Study:
    """A running study; implements ask and tell.

    Attributes:
        settings: the study's settings. records: its files. search: suggests settings.
        finished: trial -> its records, including anchors.
        unfinished: trials that an earlier run started and did not finish.
        numbers: yields the numbers of new trials.
        resumed: the trials that earlier runs finished.
        outcomes: trial -> its outcome, including anchors. known: digest of a setting -> its outcome.
        running: the trials between ask and tell, by name.
        content: a digest of the images, None if it was not computed (tests).
        lease: held by this driver, None without one (tests).
    """

    settings: StudySettings
    records: Records
    search: Search
    finished: dict[str, Sequence[Record]]
    unfinished: list[StartedTrial]
    numbers: Iterator[int]
    resumed: Sequence[FinishedTrial] = ()
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    known: dict[str, Outcome] = field(default_factory=dict)
    running: dict[str, RunningTrial] = field(default_factory=dict)
    content: str | None = None
    lease: Lease | None = None

    def __post_init__(self) -> None:
        self.template = template_of(self.settings, self.records)
        self._kept = kept_columns(self.settings.constraints)
        self._failed = {
            trial
            for trial, rows in self.finished.items()
            if trial not in ANCHORS and any(row["status"] == "failed" for row in rows)
        }
        self._quality: Quality | None = None
        self._quality_known = False
        self._corner: tuple[list[tuple[object, ...]], Reference | None] = ([], None)

    def begin(self, command: Sequence[str]) -> None:
        """Write ``study.json``; of one that exists, only the margin of the reports may change."""
        more: dict[str, Any] = {
            "command": list(command),
            "content": self.content,
            "margin": self.settings.margin,
        }
        if plugins := declared_plugins(self.settings.defenses, self.settings.attackers):
            more["plugins"] = plugins
        write_study_file(self.records, self.settings.identity(), more)
        stored = self.records.read_study_file()
        if stored is not None and stored.get("margin", MARGIN) != self.settings.margin:
            self.records.write_json(STUDY_FILE, stored | {"margin": self.settings.margin})

    def trials_left(self) -> int:
        """The number of trials that are still to be run."""
        return max(0, self.settings.trials - self._done())

    @property
    def screens(self) -> bool:
        """Whether settings are screened by some of the attackers before the others run."""
        return screens(self.settings, self.search)

    def missing_anchors(self) -> list[TrialSpec]:
        """The anchors that have no records yet, label-only first."""
        return [self.template.spec(name, name, {}) for name in ANCHORS if name not in self.finished]

    def ask(self) -> TrialSpec | None:
        """The next trial, or None if the search space seems exhausted.

        Writes ``trials/<trial>.json`` first. If the search suggests a setting that was evaluated before, it
        is told the known outcome and asked again.
        """
        for _ in range(REPEATED_SUGGESTIONS):
            proposal = self.search.ask()
            digest = proposal.config.digest()
            running = {trial.digest for trial in self.running.values()}
            if digest not in self.known and digest not in running:
                break
            self.search.tell(proposal.number, self.known.get(digest))
        else:
            return None
        knobs = proposal.config.flat()
        trial, attempt = None, 0
        for i, begun in enumerate(self.unfinished):
            if begun.defense == proposal.defense and dict(begun.knobs) == knobs:
                trial, attempt = begun.trial, begun.attempt + 1
                del self.unfinished[i]
                break
        trial = trial or f"t{next(self.numbers):04d}-{proposal.defense}"
        spec = self.template.spec(
            trial, proposal.defense, knobs, attempt=attempt, floor=self.floor(), screen=self.screens
        )
        started = StartedTrial(trial=trial, defense=spec.defense, knobs=spec.knobs, attempt=attempt)
        self.records.write_json(f"trials/{trial}.json", started.document())
        self.running[trial] = RunningTrial(proposal.number, digest)
        return spec

    def tell(self, trial: FinishedTrial) -> None:
        """Receive a trial that was asked for, or an anchor, after its records were written."""
        self.keep(trial)
        if trial.trial in ANCHORS:
            return
        asked = self.running.pop(trial.trial)
        self.search.tell(asked.number, trial.outcome)
        self.known[asked.digest] = self.outcomes[trial.trial]

    def keep(self, trial: FinishedTrial) -> None:
        """Count a trial whose records were written; they replace those of its earlier attempts."""
        whole = trial.trial in ANCHORS
        self.finished[trial.trial] = (
            trial.rows if whole else [{name: row.get(name) for name in self._kept} for row in trial.rows]
        )
        self.outcomes[trial.trial] = dict(trial.outcome)
        self._quality_known = False
        if not whole and trial.failed:
            self._failed.add(trial.trial)

    def progress(self) -> StudyProgress:
        """How many trials are in which state, and how good the settings are so far."""
        done = self._done()
        return StudyProgress(
            planned=max(self.settings.trials, done),
            done=done,
            failed=len(self._failed),
            running=len(self.running),
            quality=self._current_quality(),
        )

    def floor(self) -> Point | None:
        """The frontier's objectives of the label-only anchor, None until it has been evaluated.

        None as well if a setting that label-only dominates may be the better one: the search has an objective
        in which it may be, and would be told of attackers that had not yet run; or label-only is not
        feasible, as where the order of the scores has to be kept.
        """
        if not all(objective.best_at_label_only for objective in self.search.objectives.values()):
            return None
        known = self.outcomes.get(ANCHORS[0])
        if known is not None and any(
            v > TOLERANCE for v in self.search.constraints.violations(known).values()
        ):
            return None
        return worst_point(self.finished.get(ANCHORS[0], []))

    def check(self) -> None:
        """Raise StorageError if the lease was lost."""
        if self.lease is not None and self.lease.lost is not None:
            raise StorageError(self.lease.lost)

    def _done(self) -> int:
        return sum(name not in ANCHORS for name in self.finished)

    def _current_quality(self) -> Quality | None:
        """The quality, computed once after each tell."""
        if not self._quality_known and self.outcomes:
            anchors = [row for name in ANCHORS for row in self.finished.get(name, [])]
            told: list[tuple[object, ...]] = [
                (row["episode_id"], row.get("attempt"), row["status"]) for row in anchors
            ]
            if told != self._corner[0]:  # it takes ten times as long as the rest
                self._corner = told, corner_of(anchors)
            self._quality = quality(self.outcomes, self._corner[1], self.settings.constraints)
            self._quality_known = True
        return self._quality


def template_of(settings: StudySettings, records: Records) -> TrialTemplate:
    """The template of the trials of a study with these settings."""
    return TrialTemplate(
        study=records.study,
        root=records.storage.root,
        data_root=settings.data_root,
        constraints=settings.constraints,
        attackers=settings.attackers,
        scenes=settings.scenes(),
        stacked=settings.stacked,
        plugins=settings.plugin,
    )


def write_study_file(
    records: Records, identity: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> None:
    """Write ``study.json``, unless it exists.

    Args:
        identity: the settings that a resumed study must share. more: further entries of the file.
    """
    if records.read_json(STUDY_FILE) is not None:
        return
    about = {
        "settings": dict(identity),
        "versions": versions(),
        "source": source_fingerprint(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    records.write_json(STUDY_FILE, about | dict(more or {}))
