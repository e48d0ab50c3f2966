"""All that an audit found, as plain values for ``audit.json``, and the text of its answer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from study.auditing.advice import Change
from study.auditing.family import FAMILIES, Family
from study.auditing.intervals import AuditedExcess
from study.auditing.probes import FLOAT32, Probes
from study.auditing.rechecking import Earlier
from study.runtime.plain import visible_line

HELD_OUT = "held-out"
"""The pool of an audit without private images: public images that the attacker did not learn from."""
POOL_NAMES = {
    "train": "images that the classifier was trained on",
    "test": "private images that it was not trained on",
    HELD_OUT: "held-out public images, which stand for new ones",
}


@dataclass(frozen=True)
class Cells:
    """What the answers certify on the asked images: at most this excess, for every attacker on this pool.

    Attributes:
        excess: upper bound, in [0, 1]. cells: different answers. smallest: images of the smallest cell.
    """

    excess: float
    cells: int
    smallest: int


@dataclass(frozen=True)
class Findings:
    """The result.

    Attributes:
        url: of the endpoint. queries: questions of all runs. asked: pool -> images asked.
        probes, family: what the answers show. excess: pool -> excess. cells: pool -> certificate; without it
            where answers do not repeat. uncertified: why there is none.
        change: the least change that is safe; None: none is needed. bar: accepted excess.
        notes: about images and answers. attackers: that were run. earlier: which answers are not of this run.
    """

    url: str
    queries: int
    asked: dict[str, int]
    probes: Probes
    family: Family
    excess: dict[str, AuditedExcess]
    cells: dict[str, Cells]
    uncertified: str
    change: Change | None
    bar: float
    notes: tuple[str, ...] = ()
    attackers: tuple[str, ...] = field(default=())
    earlier: Earlier = field(default=Earlier())

    @property
    def above(self) -> bool:
        """Whether a pool's excess is not shown to be within the bar, by its upper end or by certificate."""
        return any(not self.within(pool) for pool in self.excess)

    @property
    def trained(self) -> bool:
        """Whether images were asked that the classifier was trained on."""
        return "train" in self.excess

    def within(self, pool: str) -> bool:
        """Whether the excess on this pool is shown to be within the bar.

        By its interval it is not where one image gets several answers, of which the audit's attackers have
        one each, or where answers differ in digits that these do not read.
        """
        if self.excess[pool].low > self.bar:
            return False  # measured: a certificate that says otherwise is wrong
        certified = pool in self.cells and self.cells[pool].excess <= self.bar
        return certified or self.within_by_interval(pool)

    def within_by_interval(self, pool: str) -> bool:
        """Whether the interval alone shows that, without the certificate."""
        unseen = not self.probes.repeats or self.probes.hidden > 0
        return not unseen and self.excess[pool].high <= self.bar

    def plain(self) -> dict[str, Any]:
        """For JSON: numbers that are not finite are null."""
        found: dict[str, Any] = _plain(asdict(self)) | {"above": self.above, "trained": self.trained}
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text_of(found: Findings) -> str:
    """The answer, for people."""
    lines = [f"AUDIT            {visible_line(found.url, 200)}"]
    asked = ", ".join(f"{n} {name}" for name, n in found.asked.items())
    lines.append(f"asked            {found.queries} questions; images: {asked}")
    again = f"; {found.earlier.rechecked} asked again now" if found.earlier.answers else ""
    lines.append(_row("answers", f"{found.earlier}{again}"))
    for pool, excess in found.excess.items():
        lines.append(_row("excess leakage", f"{_interval(excess)} on {POOL_NAMES[pool]}"))
        lines.append(_row("", f"worst attacker {excess.attacker}; {_judged(found, pool)}"))
    if not found.trained:
        lines.append(_row("", "nothing can be said of images that the classifier was trained on"))
    lines += _certificates(found)
    lines += _answers(found.probes)
    lines.append(_row("family", f"{found.family.name}: {FAMILIES[found.family.name]}"))
    lines.append(_row("", found.family.evidence))
    lines += _change(found)
    lines += [_row("note", note) for note in found.notes]
    return "\n".join(lines)


def _row(name: str, text: str) -> str:
    return f"{name:<16} {text}"


def _interval(excess: AuditedExcess) -> str:
    return f"{excess.estimate:.3f} [{excess.low:.3f}, {excess.high:.3f}]"


def _judged(found: Findings, pool: str) -> str:
    if found.within(pool):
        by = "" if found.within_by_interval(pool) else " (by certificate)"
        return f"within {found.bar:g}{by}"
    shown = found.excess[pool].low > found.bar
    return f"above {found.bar:g}" if shown else f"not shown to be within {found.bar:g}"


def _certificates(found: Findings) -> list[str]:
    if not found.cells:
        return [_row("certified", f"nothing: {found.uncertified}")]
    lines = []
    for pool, cells in found.cells.items():
        bound = f"at most {cells.excess:.3f}" if cells.excess < 1 else "nothing (no two answers are equal)"
        lines.append(_row("certified", f"{bound} on the asked {pool} images ({cells.cells} answers)"))
    lines.append(_row("", "if no secret key is in an answer; few images to an answer overstate the bound"))
    return lines


def _answers(seen: Probes) -> list[str]:
    repeat = "the same each time" if seen.repeats else f"differ by up to {seen.repeat_distance:.2g}"
    lines = [_row("repeats", f"{repeat} ({seen.repeated} images asked again)")]
    if not seen.repeats:
        lines.append(_row("", "measured with one answer an image; who asks q times sees more"))
    sums = "to one" if seen.sum_error <= 1e3 * FLOAT32 else f"off one by up to {seen.sum_error:.2g}"
    below = ", with scores below 0" if seen.negative else ""
    lines.append(_row("sums", f"{sums}{below}{': read as logits' if seen.logits else ''}"))
    grid = "none" if seen.steps is None else f"multiples of 1/{seen.steps}"
    printed = f"up to {seen.decimals} decimals printed"
    lines.append(_row("grid", f"{grid}; {printed}, {seen.distinct} different answers"))
    if seen.hidden:
        of = "float32 numbers" if seen.steps is None else "multiples of that"
        lines.append(_row("", f"{seen.hidden} answers differ from others in hidden digits: equal as {of}"))
    return lines


def _change(found: Findings) -> list[str]:
    if found.change is None and found.above and found.probes.one_a_label:
        return [
            _row("change", "none: each label has one answer already, which tells the label alone"),
            _row("", "more images to --private and --public, and more --queries, narrow the interval"),
        ]
    if found.change is None and found.above:
        return [_row("change", "none was looked for")]
    if found.change is None:
        return [_row("change", f"none is needed for {found.bar:g}")]
    change = found.change
    return [
        _row(
            "change",
            f"{change.name}: excess up to about {change.high:.3f}, distortion {change.distortion:.4f}",
        ),
        _row(
            "",
            "an estimate, without mixtures and what other public images change: audit it again",
        ),
    ]
