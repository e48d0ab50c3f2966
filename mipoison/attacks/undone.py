"""Feature sets of the vectors behind a defense that whoever knows its settings can undo.

Some defenses map each vector to another one by a formula with public settings. What they release is
as good as the clean vector to an attacker who solves the formula, up to what two clean vectors share.

Shape suffixes: N samples, K classes, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from mipoison.attacks.feature_sets import FEATURE_SETS, FeatureSet
from mipoison.defenses import DEFENSES
from mipoison.protocols import ThreatModel

READ = ("log-5", "centred-4", "shares")
"""Feature sets that are read in undone vectors."""


@runtime_checkable
class Undoing(Protocol):
    """The settings of a defense that can be undone."""

    def undo(self, released_NK: Tensor) -> Tensor:
        """Vectors (N, K), float64, of which the released ones may be the releases."""
        ...


@dataclass(frozen=True)
class UndoneSet(FeatureSet):
    """A feature set that is read in the undone vector. ``undo``: released vectors (N, K) to these."""

    undo: Callable[[Tensor], Tensor] = field(kw_only=True)

    def __call__(self, c_NK: Tensor) -> Tensor:
        """Features (N, F), float64, on the CPU."""
        return super().__call__(self.undo(c_NK.cpu()))


def undone_sets(known: ThreatModel) -> dict[str, FeatureSet]:
    """The sets of READ in undone vectors; none where the known defense cannot be undone."""
    if known.defense not in DEFENSES:
        return {}
    settings = DEFENSES[known.defense].from_flat(known.settings)
    if not isinstance(settings, Undoing):
        return {}
    return {
        f"undone-{name}": UndoneSet(s.columns, s.floor, s.odds, undo=settings.undo)
        for name, s in FEATURE_SETS.items()
        if name in READ
    }
