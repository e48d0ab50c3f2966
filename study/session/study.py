"""A study under way: what its search has asked for, what is finished, and how good it is by now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mipoison.defenses import ANCHORS
from mipoison.episode import versions
from mipoison.storage.artifacts import source_fingerprint
from mipoison.storage.files import StorageError
from study.analysis.worst_case import NEEDED
from study.records.store import STUDY_FILE, Records
from study.search.pruning import Point, worst_point
from study.search.sampler import Search
from study.session.callbacks import Quality, StudyProgress
from study.session.lease import Lease
from study.session.monitoring import STAGES
from study.session.quality import quality
from study.settings.study_settings import StudySettings
from study.trial.run import Outcome, Record
from study.trial.spec import FinishedTrial, TrialSpec, TrialTemplate

REPEATED_SUGGESTIONS = 60
"""So many suggestions in a row of what is known or under way: the space has no more settings to offer."""


KEPT_COLUMNS = (*NEEDED, "error", *(f"seconds_{stage}" for stage in STAGES))
"""What a study keeps of finished trials' records: outcomes, losses, what a monitor is told."""


@dataclass(frozen=True)
class RunningTrial:
    """A trial that was asked for and not told: its number in the search, its setting's digest."""

    number: int
    digest: str


@dataclass
class Study:
    """A study under way; owns ask and tell.

    Attributes:
        settings: what it was asked for. records: where it is recorded. search: suggests settings.
        finished: trial -> its records, anchors included.
        unfinished: trials that were started and not finished: name, attempt, setting.
        numbers: counts new trials.
        resumed: trials that were finished before this run.
        outcomes: trial -> its outcome, anchors included. known: digest of a setting -> its outcome.
        running: trial -> what it was asked as.
        content: what identifies its images, None where nobody asked (tests).
        lease: this driver's right to the study, None where nobody else can come (tests).
    """

    settings: StudySettings
    records: Records
    search: Search
    finished: dict[str, Sequence[Record]]
    unfinished: list[tuple[str, int, Mapping[str, Any]]]
    numbers: Iterator[int]
    resumed: Sequence[FinishedTrial] = ()
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    known: dict[str, Outcome] = field(default_factory=dict)
    running: dict[str, RunningTrial] = field(default_factory=dict)
    content: str | None = None
    lease: Lease | None = None

    def __post_init__(self) -> None:
        self.template = template_of(self.settings, self.records)
        self._failed = {
            trial
            for trial, rows in self.finished.items()
            if trial not in ANCHORS and any(row["status"] == "failed" for row in rows)
        }
        self._quality: Quality | None = None
        self._judged = False

    def begin(self, command: Sequence[str]) -> None:
        """Write down what the study is, unless an earlier run did."""
        more = {"command": list(command), "content": self.content}
        write_study_file(self.records, self.settings.identity(), more)

    def trials_left(self) -> int:
        """Trials that are still to be run."""
        return max(0, self.settings.trials - self._done())

    def missing_anchors(self) -> list[TrialSpec]:
        """The anchors without records, label-only first."""
        return [self.template.spec(name, name, {}) for name in ANCHORS if name not in self.finished]

    def ask(self) -> TrialSpec | None:
        """The next trial, written down before it starts; None if the space seems exhausted.

        Settings that were evaluated before are answered from memory.
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
        for i, (name, tried, stored) in enumerate(self.unfinished):
            if stored["defense"] == proposal.defense and dict(stored["knobs"]) == knobs:
                trial, attempt = name, tried + 1
                del self.unfinished[i]
                break
        trial = trial or f"t{next(self.numbers):04d}-{proposal.defense}"
        spec = self.template.spec(trial, proposal.defense, knobs, attempt=attempt, floor=self.floor())
        self.records.write_json(
            f"trials/{trial}.json", {"defense": spec.defense, "knobs": dict(spec.knobs), "attempt": attempt}
        )
        self.running[trial] = RunningTrial(proposal.number, digest)
        return spec

    def tell(self, trial: FinishedTrial) -> None:
        """Take in an anchor, or a trial that was asked for, once its records are written."""
        whole = trial.trial in ANCHORS
        self.finished[trial.trial] = (
            trial.rows if whole else [{name: row.get(name) for name in KEPT_COLUMNS} for row in trial.rows]
        )
        self.outcomes[trial.trial] = dict(trial.outcome)
        self._judged = False
        if trial.trial in ANCHORS:
            return
        if trial.failed:
            self._failed.add(trial.trial)
        asked = self.running.pop(trial.trial)
        self.search.tell(asked.number, trial.outcome)
        self.known[asked.digest] = self.outcomes[trial.trial]

    def progress(self) -> StudyProgress:
        """How far the search is, and how good."""
        done = self._done()
        return StudyProgress(
            planned=max(self.settings.trials, done),
            done=done,
            failed=len(self._failed),
            running=len(self.running),
            quality=self._current_quality(),
        )

    def floor(self) -> Point | None:
        """The label-only anchor's objectives, once it has faced every attacker."""
        return worst_point(self.finished.get(ANCHORS[0], []))

    def check(self) -> None:
        """StorageError if the lease is lost."""
        if self.lease is not None and self.lease.lost is not None:
            raise StorageError(self.lease.lost)

    def _done(self) -> int:
        return sum(name not in ANCHORS for name in self.finished)

    def _current_quality(self) -> Quality | None:
        """Computed once after each trial that was told, not each time that it is asked for."""
        if not self._judged and self.outcomes:
            anchors = [row for name in ANCHORS for row in self.finished.get(name, [])]
            drop = self.settings.max_accuracy_drop
            self._quality = quality(self.outcomes.values(), anchors, drop)
            self._judged = True
        return self._quality


def template_of(settings: StudySettings, records: Records) -> TrialTemplate:
    """What the trials of a study with these settings share."""
    return TrialTemplate(
        study=records.study,
        root=records.storage.root,
        data_root=settings.data_root,
        max_accuracy_drop=settings.max_accuracy_drop,
        attackers=settings.attackers,
        scenes=settings.scenes(),
        stacked=settings.stacked,
    )


def write_study_file(
    records: Records, identity: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> None:
    """Write ``study.json``, unless it is there.

    Args:
        identity: the settings that a resumed study must share. more: what else there is to say of it.
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
