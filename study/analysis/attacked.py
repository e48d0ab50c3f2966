"""Which attackers attacked each setting, and the seeds on which all of them succeeded.

In plain lists: a data frame cut up setting by setting takes a hundred times as long, in studies of thousands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study.records.status import PRUNED

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Attacked:
    """The attacks on one setting.

    Attributes:
        rows: places of its records. ok: of those that succeeded.
        attackers: those that were not pruned, sorted; succeeded: those of them that did on some seed.
        seeds: the seeds on which all of ``attackers`` succeeded, sorted; none where one of them never did.
        statuses: of all its records.
    """

    rows: Sequence[int]
    ok: Sequence[int]
    attackers: tuple[str, ...]
    succeeded: tuple[str, ...]
    seeds: tuple[int, ...]
    statuses: frozenset[str]


class Attacks:
    """The attacks in a frame with the columns ``trial``, ``attack``, ``seed`` and ``status``."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self._attack, self._status = rows["attack"].tolist(), rows["status"].tolist()
        self._seed = [None if missing else seed for seed, missing in _with_missing(rows["seed"])]
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, (trial, missing) in enumerate(_with_missing(rows["trial"])):
            if not missing:
                self._places[trial].append(place)

    def by_trial(self) -> dict[str, Attacked]:
        """Every trial's attacks, sorted by trial."""
        return {trial: self.of(self._places[trial]) for trial in sorted(self._places)}

    def of(self, places: Sequence[int]) -> Attacked:
        """The attacks in the records at these places."""
        attack, status = self._attack, self._status
        pruned = {attack[i] for i in places if status[i] == PRUNED}
        attackers = {attack[i] for i in places} - pruned
        ok = [i for i in places if status[i] == "ok"]
        by_seed: dict[int, set[str]] = defaultdict(set)
        for i in ok:
            seed = self._seed[i]
            if seed is not None and attack[i] not in pruned:
                by_seed[seed].add(attack[i])
        return Attacked(
            rows=places,
            ok=ok,
            attackers=tuple(sorted(attackers)),
            succeeded=tuple(sorted({attack[i] for i in ok} - pruned)),
            seeds=tuple(sorted(seed for seed, names in by_seed.items() if len(names) == len(attackers))),
            statuses=frozenset(status[i] for i in places),
        )


def _with_missing(column: pd.Series) -> zip[tuple[Any, bool]]:
    return zip(column.tolist(), column.isna().tolist(), strict=True)
