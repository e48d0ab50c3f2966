"""A record read by the validity checks, and the records that it is compared with."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]

CELL = ("dataset", "auxiliary", "split", "seed", "victim")
"""What compared records have in common; settings under these names (``victim.width``) included."""


@dataclass(frozen=True)
class CheckContext:
    """The records that a record is compared with: same dataset, split, seed and victim.

    Failed ones among them are ignored.

    Attributes:
        suite: every attacker's record on the same defense with the same settings; the record itself may be
            among them.
        undefended: records without a defense, one per attacker.
        label_only: records of the label-only defense, one per attacker.
    """

    suite: tuple[Record, ...] = ()
    undefended: tuple[Record, ...] = ()
    label_only: tuple[Record, ...] = ()

    @classmethod
    def of(
        cls, record: Record, records: Iterable[Record], *, undefended: str, label_only: str
    ) -> CheckContext:
        """Pick a record's context out of any collection of records.

        Args:
            record: the record to be checked.
            records: records of any cells, defenses and attackers.
            undefended: that anchor's name in the column ``defense``.
            label_only: that anchor's name there.
        """
        near = [other for other in records if same(record, other, CELL)]
        return cls(
            suite=tuple(other for other in near if same(record, other, ("defense",))),
            undefended=tuple(other for other in near if other.get("defense") == undefended),
            label_only=tuple(other for other in near if other.get("defense") == label_only),
        )


def missing(value: Any) -> bool:
    """None, or NaN: what None becomes in a data frame."""
    return value is None or (isinstance(value, numbers.Real) and math.isnan(value))


def number(record: Record, key: str) -> float | None:
    """The column ``key`` as a float; None where it is missing.

    Raises:
        ValueError: text, a truth value, or infinity.
    """
    value = record.get(key)
    if missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"record has {key}={value!r}, which is not a finite number")
    return float(value)


def settings(record: Record, name: str) -> dict[str, Any]:
    """The column ``name`` and the flat settings under it (``name.x``); missing ones left out."""
    return {key: record[key] for key in _keys(tuple(record), name) if not missing(record[key])}


@functools.lru_cache(maxsize=256)
def _keys(keys: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Those of a record's keys that are the name or under it; records of one study have the same keys."""
    return tuple(key for key in keys if key == name or key.startswith(f"{name}."))


def same(a: Record, b: Record, names: Iterable[str]) -> bool:
    """Whether two records agree in these columns and in the settings under them."""
    names = tuple(names)
    for x, y in ((a.get(name), b.get(name)) for name in names):  # most pairs differ here already
        if x != y and not (missing(x) and missing(y)):
            return False
    return all(settings(a, name) == settings(b, name) for name in names)


def ok(record: Record) -> bool:
    """Whether the episode was measured: it neither failed nor was left out.

    Raises:
        ValueError: the record has no status.
    """
    if "status" not in record:
        raise ValueError(f"record has no status; its keys are: {', '.join(sorted(record))}")
    return record["status"] == "ok"


def errors(records: Iterable[Record]) -> list[float]:
    """Reconstruction errors of the records that have one."""
    found = (number(record, "reconstruction_error") for record in records if ok(record))
    return [error for error in found if error is not None]
