"""What a study asks of a setting's utility: a bound for each of its faces, and who keeps within them.

A *face* is one number of a setting (see the page "Which face of utility matters to whom"). All are measured
on the private test images, since these are like the images that a client sends: a victim that the study
trained was not trained on them (of a user's own see the check ``test_seen``). The undefended victim keeps
within every bound that is accepted here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mipoison.config import ConfigError
from mipoison.metrics.constants import KL_FLOOR

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

TOLERANCE = 1e-9
"""In floating point 0.96 - 0.95 exceeds 0.01: rounding must not put a setting out of bounds."""
UNKNOWN = 1.0
"""By how much a face that was not measured counts as out of its bound, for the search."""


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face of utility: a column of the records, or the difference of two.

    Attributes:
        words: its name in reports.
        column: of the records. less: the column that is subtracted from it, None for none.
        low, high: the bounds that a study may put on it.
        more_is_better: whether the bound is a least value; else it is a largest one.
        classes: with fewer classes there is no such number.
    """

    words: str
    column: str
    less: str | None = None
    low: float = 0.0
    high: float = 1.0
    more_is_better: bool = False
    classes: int = 2

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the records that it is computed from."""
        return (self.column,) if self.less is None else (self.column, self.less)

    def of(self, record: Mapping[str, Any]) -> float | None:
        """Its value in a record; None where a column is missing."""
        known = [record[name] for name in self.columns if record.get(name) is not None]
        return float(known[0] - sum(known[1:])) if len(known) == len(self.columns) else None

    def beyond(self, value: Any, bound: float) -> Any:
        """How far values are out of the bound: above 0 if they are, NaN where the value is."""
        return bound - value if self.more_is_better else value - bound


FACES: dict[str, Face] = {
    "accuracy_drop": Face(words="accuracy drop", column="model_accuracy", less="protected_accuracy"),
    "confidence_distortion": Face(words="distortion", column="confidence_distortion", high=math.sqrt(2)),
    "label_agreement": Face(words="label agreement", column="label_agreement", more_is_better=True),
    "rank_correlation": Face(
        words="rank correlation", column="rank_correlation", low=-1.0, more_is_better=True
    ),
    "tail_rank_correlation": Face(
        words="rank correlation below the top",
        column="tail_rank_correlation",
        low=-1.0,
        more_is_better=True,
        classes=3,
    ),
    "top2_agreement": Face(words="top-2 agreement", column="top2_agreement", more_is_better=True, classes=3),
    "top5_agreement": Face(words="top-5 agreement", column="top5_agreement", more_is_better=True, classes=6),
    "log_loss_increase": Face(
        words="log loss increase", column="log_loss", less="clean_log_loss", high=-math.log(KL_FLOOR)
    ),
    "brier_score_increase": Face(
        words="Brier score increase", column="brier_score", less="clean_brier_score", high=2.0
    ),
    "ece_increase": Face(words="calibration error increase", column="ece", less="clean_ece"),
}
"""Name of a face, which is its column in tables of settings -> where it is found in the records."""


def bound_of(face: str) -> str:
    """The field of :class:`UtilityBounds` that bounds a face: ``max_`` or ``min_`` and its name."""
    return f"{'min' if FACES[face].more_is_better else 'max'}_{face}"


@dataclass(frozen=True, kw_only=True)
class UtilityBounds:
    """The least utility of a feasible setting: one bound per face; those left out bind nothing."""

    max_accuracy_drop: float = 0.02
    """settings that cost more model accuracy than this (share, 0 to 1) are infeasible"""
    max_confidence_distortion: float | None = None
    """settings with a larger mean l2 distance of released from clean vectors are infeasible"""
    min_label_agreement: float | None = None
    """settings that keep a smaller share of the labels are infeasible"""
    min_rank_correlation: float | None = None
    """settings with a smaller rank correlation (-1 to 1) of released with clean scores are infeasible"""
    min_tail_rank_correlation: float | None = None
    """the same without the top score: the order of the classes below it"""
    min_top2_agreement: float | None = None
    """settings that keep the clean vector's second class in a smaller share of the answers are infeasible"""
    min_top5_agreement: float | None = None
    """settings that keep a smaller share of its second to fifth class are infeasible"""
    max_log_loss_increase: float | None = None
    """settings that add more than this to the clean vectors' log loss on true labels (nats) are infeasible"""
    max_brier_score_increase: float | None = None
    """settings that add more to the clean vectors' Brier score (0 to 2) are infeasible"""
    max_ece_increase: float | None = None
    """settings that add more to the clean vectors' expected calibration error (share) are infeasible"""


@dataclass(frozen=True, kw_only=True)
class Constraints(UtilityBounds):
    """Checked bounds. A setting satisfies them if it satisfies all; where a bounded face was not measured
    (records are older than the column, too few classes, failed episodes), it does not.

    Raises:
        ConfigError: a bound is out of its range.
    """

    def __post_init__(self) -> None:
        for name, face in FACES.items():
            field = bound_of(name)
            value = getattr(self, field)
            if value is None and field not in REQUIRED:
                continue
            if not is_bound(field, value):
                unbound = f"{face.high:g} is no bound" if field in REQUIRED else "leave it out for no bound"
                raise ConfigError(
                    f"{field} = {value}: must be between {face.low:g} and {face.high:.4g}; "
                    f"{unbound} (--{field.replace('_', '-')})"
                )

    @classmethod
    def of(cls, values: Any) -> Constraints:
        """The bounds among an object's attributes."""
        return cls(**{f.name: getattr(values, f.name) for f in dataclasses.fields(cls)})

    @classmethod
    def stored(cls, settings: Mapping[str, Any]) -> Constraints:
        """The bounds among a study's stored settings; those that an earlier version did not have bind
        nothing."""
        return cls(**{f.name: settings[f.name] for f in dataclasses.fields(cls) if f.name in settings})

    def flat(self) -> dict[str, float | None]:
        """All bounds by the names of their fields, to be sent between processes."""
        return dataclasses.asdict(self)

    @property
    def bounds(self) -> dict[str, float]:
        """Face -> its bound, of those that have one."""
        found = {name: getattr(self, bound_of(name)) for name in FACES}
        return {name: float(bound) for name, bound in found.items() if bound is not None}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the records that the bounded faces are computed from."""
        return tuple(dict.fromkeys(column for name in self.bounds for column in FACES[name].columns))

    def check_classes(self, n_classes: int) -> None:
        """Raise ConfigError if a bounded face does not exist for so few classes."""
        for name in self.bounds:
            face, field = FACES[name], bound_of(name)
            if n_classes < face.classes:
                raise ConfigError(
                    f"{field} = {self.bounds[name]:g}: {face.words} needs {face.classes} classes or more, "
                    f"and the victim has {n_classes}; leave --{field.replace('_', '-')} out"
                )

    def broken(self, table: pd.DataFrame) -> pd.DataFrame:
        """Whether each row is out of each bound: one column per bounded face, named as it is.

        Args:
            table: settings; has a column for each bounded face. Null is out of the bound.
        """
        import numpy as np
        import pandas as pd

        found = {}
        for name, bound in self.bounds.items():
            values = table[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
            with np.errstate(invalid="ignore"):
                found[name] = ~(FACES[name].beyond(values, bound) <= TOLERANCE)
        return pd.DataFrame(found, index=table.index)

    def satisfied(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Whether each row is within every bound, see :meth:`broken`."""
        return ~self.broken(table).to_numpy(dtype=bool).any(axis=1)

    def violations(self, outcome: Mapping[str, float | None]) -> dict[str, float]:
        """Bounded face -> how far a setting is out of its bound, as Optuna counts: above 0 is infeasible."""
        return {
            name: UNKNOWN if outcome.get(name) is None else float(FACES[name].beyond(outcome[name], bound))
            for name, bound in self.bounds.items()
        }

    def __str__(self) -> str:
        """``accuracy drop at most 0.01, top-5 agreement at least 0.9``."""
        return ", ".join(
            f"{FACES[name].words} at {'least' if FACES[name].more_is_better else 'most'} {bound:g}"
            for name, bound in self.bounds.items()
        )


REQUIRED = ("max_accuracy_drop",)
"""Bounds that every study has."""
FIELDS = {bound_of(name): face for name, face in FACES.items()}
"""Name of a bound -> the face that it is of."""


def is_bound(field: str, value: Any) -> bool:
    """Whether a value may be the bound of this name: a number in its range, or None for none."""
    if value is None:
        return field not in REQUIRED
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and FIELDS[field].low <= value <= FIELDS[field].high
