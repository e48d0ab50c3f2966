"""Whether the paper's orderings hold in our records: paired comparisons over seeds, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from mipoison.attacks import PASSIVE
from mipoison.metrics.statistics import paired_difference
from study.paper.experiments import PaperRow, table_rows
from study.paper.measured import Measured


def verdict(row: PaperRow, reference: PaperRow, measure: str, measured: Measured) -> str:
    """Whether our records confirm the paper's order of a row and its reference.

    Decided by :func:`mipoison.metrics.statistics.paired_difference` over seeds; three seeds at least.
    """
    # The order is the same on both pixel scales.
    a, b = measured.values(row, measure), measured.values(reference, measure)
    seeds = a.index.intersection(b.index)
    if not len(seeds):
        return "not run"
    paper = dict(row.paper), dict(reference.paper)
    if measure not in paper[0] or measure not in paper[1]:
        return ""
    claimed = np.sign(paper[0][measure] - paper[1][measure])
    difference = paired_difference(a[seeds].to_numpy(), b[seeds].to_numpy(), rng=np.random.default_rng(0))
    if len(seeds) < 3:
        return "too few seeds"
    if not difference.significant:
        return "no difference shown"
    if claimed == 0:
        return "equal in the paper"
    return "holds" if np.sign(difference.mean) == claimed else "reversed"


def against_lpa(row: PaperRow, rows: Iterable[PaperRow], measured: Measured) -> str:
    """Compare a control's error with LPA's under the same attacker (in Table VI at the same budget)."""
    lpa = [
        r for r in rows if r.defense.startswith("lpa") and (r.dataset, r.attack) == (row.dataset, row.attack)
    ]
    budget = dict(row.knobs).get("budget")
    lpa = [r for r in lpa if budget is None or dict(r.knobs)["budget"] == budget] or lpa
    if not lpa or row.defense not in ("noise", "rounding"):
        return ""
    a = measured.values(row, "reconstruction_error")
    b = measured.values(lpa[0], "reconstruction_error")
    seeds = a.index.intersection(b.index)
    if len(seeds) < 3:
        return "too few seeds" if len(seeds) else "not run"
    difference = paired_difference(a[seeds].to_numpy(), b[seeds].to_numpy(), rng=np.random.default_rng(0))
    if not difference.significant:
        return f"{lpa[0].defense}: no difference shown"
    better, worse = (row, lpa[0]) if difference.mean > 0 else (lpa[0], row)
    return f"{better.defense} protects better than {worse.defense}"


def trained_well(measured: Measured) -> str:
    """Whether the undefended attacker beats the label alone and the mean image; if not, tables say little."""
    none = PaperRow("", "", "none", (), PASSIVE)
    floor = PaperRow("", "", "label-only", (), PASSIVE)
    error, label = (
        measured.values(none, "reconstruction_error"),
        measured.values(floor, "reconstruction_error"),
    )
    mean_image = measured.values(none, "mean_image_error")
    if not len(error) or not len(label):
        return f"{measured.name}: undefended or label-only was not run."
    text = []
    for name, other in (("the label alone", label), ("the mean image", mean_image)):
        seeds = error.index.intersection(other.index)
        d = paired_difference(error[seeds].to_numpy(), other[seeds].to_numpy(), rng=np.random.default_rng(0))
        how = (
            "is not shown to differ from"
            if not d.significant
            else "beats"
            if d.mean < 0
            else "does worse than"
        )
        text.append(f"{how} {name} ({other.mean():.4f})")
    return f"{measured.name}: the undefended attacker ({error.mean():.4f}) {' and '.join(text)}."


def learned_nothing(table: str, found: Mapping[str, Measured]) -> list[str]:
    """A line per attacker that without a defense is no better than the mean image: no evidence for one."""
    lines = []
    for row in table_rows(table):
        measured = found.get(row.run)
        if measured is None or row.defense != "none" or row.attack == PASSIVE:
            continue
        error = measured.values(row, "reconstruction_error").mean()
        mean_image = measured.values(row, "mean_image_error").mean()
        if error >= mean_image:
            lines.append(
                f"{measured.name}: undefended, the attacker {row.attack} ({error:.4f}) is no better "
                f"than the mean image ({mean_image:.4f}): its rows are no evidence for or against a defense."
            )
    return lines
