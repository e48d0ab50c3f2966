"""Numbers of one setting that the search may minimise and the frontier lacks, from its trial's records.

Each holds on private train and private test images: of two values the larger counts. As in
``study.analysis``, a worst case is over the attackers' means over the seeds on which all of them succeeded;
attackers that a cut trial did not run are not asked for. Unknown is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from mipoison.metrics.ranking import RANKING_COLUMNS
from study.analysis.verdicts import CERTIFIED
from study.records.constraints import FACES
from study.records.status import PRUNED

POOLS = ("", "_test")
ERROR, IDENTIFICATION = "reconstruction_error", "identification_auc"
UTILITY = (RANKING_COLUMNS[0], "log_loss", "brier_score")
"""Measured once a seed, the same for all attackers."""
MEASURED = (*UTILITY, *(name + pool for name in (ERROR, IDENTIFICATION) for pool in POOLS), *CERTIFIED)
"""Columns of the records that these numbers are computed from."""

Rows = Sequence[Mapping[str, Any]]


class Suite(NamedTuple):
    """Successful records by attacker and seed; the seeds on which all attackers succeeded."""

    rows: dict[tuple[str, int], Mapping[str, Any]]
    attackers: list[str]
    seeds: list[int]

    @classmethod
    def of(cls, records: Rows) -> Suite:
        cut = {r["attack"] for r in records if r["status"] == PRUNED}
        attackers = sorted({r["attack"] for r in records} - cut)
        ok = [r for r in records if r["status"] == "ok" and r["attack"] not in cut]
        rows = {(r["attack"], r["seed"]): r for r in ok}
        seeds = sorted({r["seed"] for r in ok})
        return cls(rows, attackers, [s for s in seeds if all((a, s) in rows for a in attackers)])

    def means(self, column: str, seeds: Sequence[int]) -> list[float]:
        """Each attacker's mean over the seeds; of an attacker without a value there is none."""
        per_attacker = ([self.rows[a, s].get(column) for s in seeds] for a in self.attackers)
        known = ([v for v in values if v is not None] for values in per_attacker)
        return [fmean(values) for values in known if values]


def measures(records: Rows, label_only: Rows, faces: Iterable[str] = ()) -> dict[str, float | None]:
    """Means over seeds of the faces of utility, the largest excess leakage and identification AUC.

    Args:
        records: of one trial. label_only: the label-only anchor's records, what the excess is over; may be
            empty.
        faces: further faces of utility, names of ``study.records.constraints.FACES``.
    """
    suite = Suite.of(records)
    every: dict[int, Mapping[str, Any]] = {}
    for (_, seed), row in suite.rows.items():
        every.setdefault(seed, row)
    by_seed = {seed: row for seed, row in every.items() if not suite.seeds or seed in suite.seeds}
    values = {name: [row.get(name) for row in by_seed.values()] for name in UTILITY}
    out: dict[str, float | None] = {}
    for name, found in values.items():
        known = [v for v in found if v is not None]
        out[name] = fmean(known) if known else None
    # Constraints are held to all seeds, as in the frontier: a failed attacker takes no seed's cost away.
    for name in faces:
        bounded = [FACES[name].of(row) for row in every.values()]
        numbers = [v for v in bounded if v is not None]
        out[name] = fmean(numbers) if numbers and len(numbers) == len(bounded) else None
    out["suite_excess_worst"] = _excess(suite, Suite.of(label_only))
    auc = [v for pool in POOLS for v in suite.means(IDENTIFICATION + pool, suite.seeds)]
    out["worst_identification_auc"] = max(auc, default=None)
    return out


def _excess(suite: Suite, floor: Suite) -> float | None:
    """The larger excess of train and test, as the mean of ``mipoison.metrics.excess.Excess``: 1 - the least
    mean error / label-only's, at least 0. None without a seed in common, or without an error on train."""
    seeds = [seed for seed in suite.seeds if seed in floor.seeds]
    found: list[float] = []
    for pool in POOLS:
        errors, floors = (side.means(ERROR + pool, seeds) for side in (suite, floor))
        if errors and floors and min(floors) > 0:
            found.append(max(0.0, 1 - min(errors) / min(floors)))
        elif not found:
            return None
    return max(found)
