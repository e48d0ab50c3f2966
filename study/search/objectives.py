"""What the search may minimise or maximise: numbers of one setting, by the names that ``--objectives`` takes.

The frontier and its hypervolume always have the same three objectives (``study.analysis.frontier``), so that
studies can be compared; these here say what Optuna is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mipoison.config import ConfigError, choose


@dataclass(frozen=True, kw_only=True)
class SearchObjective:
    """An objective of the search.

    Attributes:
        column: of a trial's outcome (see ``study.trial.run.outcome_of``).
        maximise: whether more is better.
        missing: what an unknown value counts as in a trial that was measured; None: the trial cannot be told.
        best_at_label_only: whether no release has a better value than label-only. Only then may a setting
            that label-only dominates be cut short.
    """

    column: str
    maximise: bool = False
    missing: float | None = None
    best_at_label_only: bool = True


OBJECTIVES: dict[str, SearchObjective] = {
    "distortion": SearchObjective(column="confidence_distortion"),
    "order": SearchObjective(column="tail_rank_correlation", maximise=True, best_at_label_only=False),
    "log-loss": SearchObjective(column="log_loss", best_at_label_only=False),
    "brier": SearchObjective(column="brier_score", best_at_label_only=False),
    "excess": SearchObjective(column="suite_excess_worst"),
    "error": SearchObjective(column="worst_reconstruction_error", maximise=True),
    "accuracy": SearchObjective(column="worst_attack_accuracy"),
    "identification": SearchObjective(column="worst_identification_auc"),
    "certified": SearchObjective(column="certified_excess_worst", missing=1.0),
}
"""Name -> objective. Without a certificate nothing is excluded: the certified excess counts as 1."""
SHARED_CLASSES = ("distortion", "identification", "error")
OTHER_CLASSES = ("distortion", "accuracy", "error")
"""Where both sides share the classes, the label gives the class away and attack accuracy is 1 for every
setting. Studies begun before there was a choice had these objectives in any case."""


def chosen(names: Iterable[str]) -> dict[str, SearchObjective]:
    """Name -> objective, in the order given.

    Raises:
        ConfigError: a name is unknown, or there are fewer than two.
    """
    found = {name: OBJECTIVES[choose("objective", name, OBJECTIVES)] for name in names}
    if len(found) < 2:
        raise ConfigError(
            f"objectives = {', '.join(found) or 'none'}: a frontier needs at least two; "
            f"choose from: {', '.join(OBJECTIVES)}"
        )
    return found


def default_names(auxiliary: str) -> tuple[str, ...]:
    """The objectives of a new study that names none."""
    return SHARED_CLASSES if auxiliary == "same" else OTHER_CLASSES


def directions(objectives: Mapping[str, SearchObjective]) -> dict[str, Literal["maximize", "minimize"]]:
    """Column -> direction, as Optuna names it."""
    return {o.column: "maximize" if o.maximise else "minimize" for o in objectives.values()}
