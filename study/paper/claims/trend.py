"""The rule of a trend: whether a quantity rises or falls with a knob, all else being equal."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import scipy.stats

from study.analysis.knobs import KNOB, knobs_text
from study.paper.claims.evidence import Evidence, Setting
from study.paper.claims.quantities import IMAGES, Quantity, Sign
from study.paper.claims.readings import Place, Reading, one_sided
from study.paper.claims.rules import pools_text

Side = Literal["greater", "less"]


@dataclass(frozen=True)
class Trend:
    """Kendall's tau between a knob and a quantity, over the settings of a defense, on each seed.

    Settings that differ in another knob as well are not compared. Seeds on which all values are equal have
    no tau. There are few values that tau can have: where it is the same on all seeds, p is the probability
    that orders drawn by lot have a tau as large on each of them.

    Attributes:
        fewest: settings with different values of the knob that it takes.
    """

    quantity: Quantity
    of: Setting
    knob: str
    sign: Sign
    threshold: float = 0.0
    fewest: int = 4

    def __str__(self) -> str:
        return (
            f"Kendall's tau of {self.knob} and {self.quantity}, over {self.fewest} or more settings of "
            f"{self.of} that differ in it alone, is {self.sign} {self.threshold:g}{pools_text(self.quantity)}"
        )

    def readings(self, evidence: Evidence) -> list[Reading]:
        """See :class:`Rule`."""
        groups = defaultdict(list)
        for trial in evidence.trials(self.of):
            if evidence.knobs[trial].get(self.knob) is not None:
                groups[evidence.exact(trial, but=self.knob)].append(trial)
        found = [
            self._reading(evidence, rest, trials, pool)
            for rest, trials in groups.items()
            for pool in self.quantity.pools
        ]
        return [reading for reading in found if reading is not None]

    def left_out(self, evidence: Evidence) -> list[tuple[str, ...]]:
        """See :class:`Rule`."""
        return [
            evidence.key((trial, trial), pool)
            for trial in evidence.trials(self.of)
            if trial in evidence.screened
            for pool in self.quantity.pools
            if self.quantity.values(evidence, trial, pool) is None
        ]

    def _reading(self, evidence: Evidence, rest: str, trials: list[str], pool: str) -> Reading | None:
        knobs, series, attackers = [], [], set()
        for trial in trials:
            values = self.quantity.values(evidence, trial, pool)
            if values is not None:
                knobs.append(float(evidence.knobs[trial][self.knob]))
                series.append(values.shown)
                attackers.add(values.of)
        if len(set(knobs)) < self.fewest:
            return None
        table = pd.concat(series, axis=1).dropna().to_numpy(dtype=float)
        table = table[np.ptp(table, axis=1) > 0]
        if not len(table):
            return None
        tau = [float(scipy.stats.kendalltau(knobs, row).statistic) for row in table]
        text = knobs_text(evidence.settings[trials[0]] | {KNOB + self.knob: None})
        of = f"{self.of.defense} {text}".strip() + f", {len(knobs)} settings"
        key = (*evidence.scene, rest, repr(sorted(knobs)), pool, ";".join(sorted(attackers)))
        place = Place(f"{evidence.name}: {of}, {IMAGES[pool]}", evidence.dataset, key)
        more = self.sign == "above"
        found = one_sided(place, tau, self.threshold, more=more, holds=tau, opposite=tau)
        if np.ptp(tau) > 0:
            return found
        sides: tuple[Side, Side] = ("greater", "less") if more else ("less", "greater")
        p = [
            math.prod(float(scipy.stats.kendalltau(knobs, row, alternative=side).pvalue) for row in table)
            for side in sides
        ]
        return dataclasses.replace(
            found, p_holds=max(found.p_holds, p[0]), p_opposite=max(found.p_opposite, p[1])
        )
