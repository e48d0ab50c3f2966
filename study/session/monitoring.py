"""Prometheus metrics of a running study: episodes, stages, cache hits, and the quality of the frontier.

Only the driver reports, from the records that it reads back: the counters equal the Parquet files, and no
count is lost with a worker. Ray serves the metrics at each node's metrics port, with names prefixed by
``ray_``; ``clusters/grafana-dashboard.json`` shows them. Without Ray there are no metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from study.session.quality import Quality

STAGES = ("prepare", "poison", "attack", "evaluate")
"""Stages of an episode; ``seconds_<stage>`` are columns of the records."""
SHARED_STAGES = ("prepare", "poison")
"""Stages that run once per setting and seed; the records of all attackers repeat their seconds."""
SECONDS = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0]
"""Bounds of the histogram's buckets."""
EPISODES = "mipoison_episodes"
"""Counter by study, dataset, defense, attack and status (ok, failed, cut): a few hundred series a study."""
SPENT = "mipoison_seconds"
"""Counter of seconds by study and stage."""
STAGE_SECONDS = "mipoison_stage_seconds"
"""Histogram by study and stage. Ray exports only the buckets, so its ``_sum`` is approximate: use SPENT."""
ARTIFACTS = "mipoison_artifacts"
"""Counter by study and outcome (made, reused): trained parts and finished episodes in the artifact store."""
TRIALS = "mipoison_trials"
"""Gauge by study and state (planned, done, failed, running), anchors not counted."""
ACCURACY = "mipoison_worst_attack_accuracy"
"""Gauge by study: the lowest worst-case attack accuracy (share) of the feasible settings."""
HYPERVOLUME = "mipoison_hypervolume"
"""Gauge by study: the frontier's hypervolume (share of the box between its reference corners)."""
EXCESS = "mipoison_excess_leakage"
"""Gauge by study: the least worst-case excess leakage (share) of the feasible settings, without anchors."""
IDENTIFICATION = "mipoison_identification_auc"
"""Gauge by study: their least identification AUC of the strongest attacker (0.5: chance)."""
NAMES = (
    EPISODES, SPENT, STAGE_SECONDS, ARTIFACTS, TRIALS, ACCURACY, HYPERVOLUME, EXCESS, IDENTIFICATION
)  # fmt: skip

Record = Mapping[str, Any]


class Monitor:
    """A monitor that reports nothing, for a study without Ray."""

    def finished(self, rows: Iterable[Record], made: int = 0, reused: int = 0) -> None:
        """Count a trial's records, and the artifacts that it made and reused."""

    def trials(self, planned: int, done: int, failed: int, running: int) -> None:
        """Set the number of trials in each state."""

    def quality(self, quality: Quality) -> None:
        """Set how good the settings are, as far as it is known."""


def stage_seconds(rows: Iterable[Record]) -> list[tuple[str, float]]:
    """(stage, seconds) of a trial's successful episodes; stages that attackers share count once a seed."""
    out: list[tuple[str, float]] = []
    seen: set[tuple[str, Any]] = set()
    for row in rows:
        if row["status"] != "ok":
            continue
        for stage in STAGES:
            if stage in SHARED_STAGES:
                if (stage, row["seed"]) in seen:
                    continue
                seen.add((stage, row["seed"]))
            if row.get(f"seconds_{stage}") is not None:
                out.append((stage, float(row[f"seconds_{stage}"])))
    return out


class RayMonitor(Monitor):
    """Reports through ``ray.util.metrics``; Ray must be connected.

    Args:
        study: its name.
        dataset: the name of its data set, without a path.
    """

    def __init__(self, study: str, dataset: str) -> None:
        # Here, because studies without Ray import this module, and need not wait for Ray or have it.
        from ray.util.metrics import Counter, Gauge, Histogram

        self._study = {"study": study}
        self._episode = {"study": study, "dataset": dataset}
        self._episodes = Counter(
            EPISODES,
            "Finished episodes by status: ok, failed, cut",
            ("study", "dataset", "defense", "attack", "status"),
        )
        self._artifacts = Counter(
            ARTIFACTS, "Trained parts and episodes: made, or reused from the store", ("study", "outcome")
        )
        self._spent = Counter(SPENT, "Seconds spent in a stage, summed", ("study", "stage"))
        self._seconds = Histogram(STAGE_SECONDS, "Seconds of a stage", SECONDS, ("study", "stage"))
        self._trials = Gauge(TRIALS, "Trials: planned, done, failed, running", ("study", "state"))
        self._accuracy = Gauge(ACCURACY, "Least worst-case attack accuracy, feasible settings", ("study",))
        self._volume = Gauge(HYPERVOLUME, "Hypervolume of the frontier", ("study",))
        self._excess = Gauge(EXCESS, "Least worst-case excess leakage, feasible settings", ("study",))
        self._identification = Gauge(
            IDENTIFICATION, "Least worst-case identification AUC, feasible settings", ("study",)
        )

    def finished(self, rows: Iterable[Record], made: int = 0, reused: int = 0) -> None:
        rows = list(rows)
        for row in rows:
            which = {"defense": row["defense"], "attack": row["attack"], "status": row["status"]}
            self._episodes.inc(1, self._episode | which)
        for stage, seconds in stage_seconds(rows):
            which = self._study | {"stage": stage}
            self._seconds.observe(seconds, which)
            if seconds > 0:
                self._spent.inc(seconds, which)
        for outcome, n in (("made", made), ("reused", reused)):
            if n > 0:
                self._artifacts.inc(n, self._study | {"outcome": outcome})

    def trials(self, planned: int, done: int, failed: int, running: int) -> None:
        states = {"planned": planned, "done": done, "failed": failed, "running": running}
        for state, n in states.items():
            self._trials.set(n, self._study | {"state": state})

    def quality(self, quality: Quality) -> None:
        for gauge, value in (
            (self._accuracy, quality.accuracy),
            (self._volume, quality.hypervolume),
            (self._excess, quality.excess and quality.excess.value),
            (self._identification, quality.identification and quality.identification.value),
        ):
            if value is not None:
                gauge.set(value, self._study)
