"""Run a trial, compare it with the anchors, write its records, and compute the outcome for the search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mipoison.defenses import ANCHORS
from mipoison.metrics import CheckContext, apply_checks, excess_leakage
from mipoison.storage.files import Storage
from study.analysis.frontier import configuration_table
from study.analysis.verdicts import CERTIFIED, largest_certificates
from study.analysis.worst_case import NEEDED
from study.records.constraints import Constraints
from study.records.flat import finite
from study.records.images import write_pictures
from study.records.status import PRUNED
from study.records.store import Records
from study.search.objectives import OBJECTIVES
from study.trial.failure import FailureKind, TrialFailure
from study.trial.measures import measures
from study.trial.ranks import Group
from study.trial.spec import TrialResult, TrialSpec
from study.trial.worker import failed_trial, run_trial

Record = dict[str, Any]
Outcome = dict[str, float | None]
_COLUMNS = tuple(o.column for o in OBJECTIVES.values())


def relate_to_anchors(records: list[Record], anchors: list[Record]) -> list[Record]:
    """Add the columns that compare a record with its seed's anchors: excess over label-only, and checks.

    The reference of a seed is the label-only anchor under its own worst attacker (lowest mean error over the
    seeds), so that reference and worst case are chosen by the same rule.
    """
    label_only, undefended = ANCHORS
    floor = _worst([r for r in anchors if r["defense"] == label_only and _is_measured(r)])
    compared = [*anchors, *records]
    out = []
    for record in records:
        row = dict(record)
        reference = floor.get(row["seed"])
        if row["status"] == "ok" and reference is not None:
            row["excess_leakage"] = excess_leakage(
                row["reconstruction_error"], reference["reconstruction_error"]
            )
            row["excess_attack_accuracy"] = row["attack_accuracy"] - reference["attack_accuracy"]
        near = [r for r in compared if r["defense"] != row["defense"] or r in records]
        context = CheckContext.of(row, near, undefended=undefended, label_only=label_only)
        out.append(row | apply_checks(row, context))
    return out


def _is_measured(record: Record) -> bool:
    """Whether an anchor's record has the measurements that others are compared with."""
    return bool(
        record["status"] == "ok"
        and record.get("reconstruction_error")  # nothing can be compared with an error of zero
        and record.get("attack_accuracy") is not None
    )


def _worst(records: list[Record]) -> dict[int, Record]:
    """Seed -> record of the attacker with the lowest mean error over the seeds that all attackers share."""
    by_attack: dict[str, dict[int, Record]] = {}
    for record in records:
        by_attack.setdefault(record["attack"], {})[record["seed"]] = record
    if not by_attack:
        return {}
    shared = set.intersection(*(set(rows) for rows in by_attack.values()))
    if not shared:
        return {}
    mean = {
        a: float(np.mean([rows[s]["reconstruction_error"] for s in sorted(shared)]))
        for a, rows in by_attack.items()
    }
    return by_attack[min(sorted(mean), key=lambda a: mean[a])]


def outcome_of(records: list[Record], constraints: Constraints, label_only: Sequence[Record] = ()) -> Outcome:
    """Every objective that there is, and the bounded faces of utility, of one trial; counts of episodes.

    A number is None where it cannot be told: an episode failed, or the records are older than its column.

    Args:
        label_only: the label-only anchor's records; the excess leakage is not known without them.
    """
    return outcomes_of({"t": records}, constraints, label_only)["t"]


def outcomes_of(
    trials: Mapping[str, Sequence[Record]], constraints: Constraints, label_only: Sequence[Record] = ()
) -> dict[str, Outcome]:
    """Each trial's outcome; ten times faster than one call of :func:`outcome_of` per trial."""
    import pandas as pd

    if not trials:
        return {}
    # Only the columns that are needed, as a resumed study does this for every trial.
    columns: dict[str, list[Any]] = {name: [] for name in (*NEEDED, *CERTIFIED, *constraints.columns)}
    for trial, records in trials.items():
        for r in records:
            for name, column in columns.items():
                column.append(trial if name == "trial" else r.get(name, 0 if name == "attempt" else None))
    rows = pd.DataFrame(columns)
    table = configuration_table(rows, constraints=constraints)
    certified = largest_certificates(rows)
    faces = [name for name in constraints.bounds if name not in table]
    found = {
        setting["trial"]: {
            **setting,
            "certified_excess_worst": certified.get(setting["trial"]),
            **measures(trials[setting["trial"]], label_only, faces),
        }
        for setting in table.to_dict("records")
    }
    return {trial: _outcome(found[trial], list(records), constraints) for trial, records in trials.items()}


def _outcome(setting: Mapping[str, Any], records: list[Record], constraints: Constraints) -> Outcome:
    count = Counter(r["status"] for r in records)
    known = {r["attack"] for r in records if r["status"] in ("ok", PRUNED)}
    # An attacker that failed on every seed may be the strongest one, so that no worst case is known.
    failed_on_all_seeds = {r["attack"] for r in records} - known
    values = {name: finite(setting[name]) for name in (*_COLUMNS, *constraints.bounds)}
    if failed_on_all_seeds:
        values |= dict.fromkeys(_COLUMNS)
    failed = len(records) - count["ok"] - count[PRUNED]
    return {
        **values,
        "episodes": float(len(records)),
        "failed": float(failed),
        "cut": float(count[PRUNED]),
        "screened": float(any(r.get("screened") for r in records)),
    }


def record_trial(spec: TrialSpec, result: TrialResult, anchors: list[Record]) -> Outcome:
    """Compare with the anchors, write the pictures and the Parquet file, and return the trial's outcome."""
    records = records_of(spec)
    rows = relate_to_anchors(result.records, anchors)
    if result.pictures:
        write_pictures(records.storage, spec.study, spec.trial, result.pictures)
    records.write_trial(spec.trial, spec.attempt, rows)
    artifacts = {"artifacts_made": float(result.made), "artifacts_reused": float(result.reused)}
    label_only = [r for r in anchors if r["defense"] == ANCHORS[0]]
    return outcome_of(rows, Constraints.stored(spec.constraints), label_only) | artifacts


def records_of(spec: TrialSpec) -> Records:
    """The records of the trial's study."""
    return Records(Storage(spec.root), spec.study)


def read_anchors(records: Records) -> list[Record]:
    """The anchors' records, which their first attempt wrote; without those of an anchor that has none yet."""
    return [r for name in ANCHORS for r in records.read_trial(name, 0)]


def run_and_record(spec: TrialSpec, group: Group | None = None) -> Outcome:
    """Run a trial and write its records. In a group only rank 0 writes, and returns the outcome."""
    result = run_trial(spec, group)
    if group is not None and group.rank != 0:
        return {}
    return record_trial(spec, result, read_anchors(records_of(spec)))


def is_machine_failure(record: Record) -> bool:
    """Whether an episode failed without its setting being at fault; a resumed study runs it again."""
    failure = TrialFailure.of_record(record)
    return failure is not None and failure.kind is not FailureKind.SETTING


def record_failure(spec: TrialSpec, failure: TrialFailure) -> Outcome:
    """Record a trial that has no outcome: finished episodes are kept, the others fail with the message."""
    return record_trial(spec, failed_trial(spec, failure.message), read_anchors(records_of(spec)))
