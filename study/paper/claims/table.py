"""The table of claims: on the screen, as Markdown and as CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from mipoison.storage.files import Storage
from study.paper.claims.decide import Decision
from study.paper.claims.readings import FEWEST, LEVEL, Reading
from study.runtime.plain import markdown_text

FOLDER = "reproduction"
"""Where the tables of ``reproduce`` are, in a storage."""
COLUMNS = (
    "id", "claim", "source", "rule", "verdict", "unadjusted", "by data set", "readings", "left out",
    "records", "decisive", "mean", "low", "high", "seeds", "p", "p_holm",
)  # fmt: skip
READINGS = ("id", "where", "data", "mean", "low", "high", "seeds", "p_holds", "p_opposite")
DIGITS = 4
"""Significant ones, in files."""
SHORT = 60
"""Characters of a reading's place that a table on the screen has room for."""


def claims_frame(decisions: Sequence[Decision]) -> pd.DataFrame:
    """One row per claim, with COLUMNS. The numbers are of the decisive reading."""
    rows = []
    for d in decisions:
        one = d.found.decisive
        rows.append(
            {
                "id": d.claim.id,
                "claim": d.claim.text,
                "source": d.claim.source,
                "rule": d.claim.rule_text,
                "verdict": d.verdict,
                "unadjusted": d.found.alone,
                "by data set": by_data(d),
                "readings": len(d.readings),
                "left out": sum(d.left_out.values()),
                "records": ", ".join(sorted({r.where.partition(":")[0] for r in d.readings})),
                "decisive": None if one is None else one.where,
                **{name: None if one is None else getattr(one, name) for name in READINGS[3:7]},
                "p": d.found.p,
                "p_holm": d.p_holm,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def readings_frame(decisions: Sequence[Decision]) -> pd.DataFrame:
    """One row per reading, with READINGS."""
    rows = [
        {"id": d.claim.id, **{name: getattr(reading, name) for name in READINGS[1:]}}
        for d in decisions
        for reading in d.readings
    ]
    return pd.DataFrame(rows, columns=list(READINGS))


def by_data(decision: Decision) -> str:
    """``digits stands, mnist not shown``."""
    return ", ".join(f"{name} {verdict}" for name, verdict in decision.by_data.items())


def numbers(reading: Reading | None) -> str:
    """Mean, interval and seeds of a reading; of an exact one the share of records that break the rule."""
    if reading is None:
        return "-"
    if reading.exact:
        return f"{reading.mean:.3g} of {reading.seeds} records break it"
    if reading.low is None or reading.high is None:
        return f"{reading.mean:.3g} ({reading.seeds} seed)"
    return f"{reading.mean:.3g} [{reading.low:.3g}, {reading.high:.3g}], {reading.seeds} seeds"


def counts(decisions: Sequence[Decision]) -> str:
    """How many claims have each verdict."""
    found = Counter(d.verdict for d in decisions)
    parts = [
        f"{found[name]} {name}" for name in ("stands", "refuted", "not shown", "no record") if found[name]
    ]
    return f"{len(decisions)} claims: {', '.join(parts)}"


def caption(decisions: Sequence[Decision]) -> str:
    """How the verdicts are made."""
    tested = sum(d.p_holm is not None for d in decisions)
    return (
        "A claim stands, or is refuted, if one-sided Student-t tests over seeds show it, or its opposite "
        f"(two-sided p at most {LEVEL:g}, {FEWEST} seeds or more); else it is not shown. A claim of all "
        "readings needs all of them, and its opposite one (Simes); a claim of some the other way round. "
        f"The verdict is by p adjusted by Holm for the {tested} claims that were tested together; "
        "'unadjusted' and 'by data set' are without that. A claim of each single record is counted, not "
        f"tested, nor is one of fewer than {FEWEST} seeds. "
        f"{_left_out(decisions)}"
        "An attacker is chosen on other seeds where a leak is claimed, and on the same where its absence is."
    )


def _left_out(decisions: Sequence[Decision]) -> str:
    of = [sum(d.left_out.values()) for d in decisions if d.left_out]
    if not of:
        return ""
    return (
        "Some settings have no reading, since they were only screened, without the attackers of the claim "
        f"({sum(of)} in {len(of)} of the claims); a claim of all readings does not stand then. "
    )


def claims_markdown(decisions: Sequence[Decision]) -> str:
    """The table in Markdown, and below it each rule with the records that it was read from."""
    lines = ["# Claims and verdicts", "", f"{counts(decisions)}. {caption(decisions)}", ""]
    lines += [
        "`mipoison reproduce --claims --studies study/results` makes this page of the records there.",
        "",
    ]
    head = ("id", "claim", "source", "verdict", "unadjusted", "by data set", "decisive reading", "p (Holm)")
    lines += [_line(head), _line(["---"] * len(head))]
    for d in decisions:
        p = "-" if d.found.p is None else f"{d.found.p:.2g} ({d.p_holm:.2g})"
        cells = (d.claim.id, d.claim.text, d.claim.source, f"{d.verdict}", d.found.alone, by_data(d) or "-",
                 numbers(d.found.decisive), p)  # fmt: skip
        lines.append(_line([markdown_text(cell) for cell in cells]))
    lines += ["", "## Rules and records", ""]
    for d in decisions:
        lines.append(f"- **{d.claim.id}** {markdown_text(d.claim.rule_text)}.")
        one = d.found.decisive
        if one is not None:
            records = ", ".join(sorted({r.where.partition(":")[0] for r in d.readings}))
            many = "1 reading" if len(d.readings) == 1 else f"{len(d.readings)} readings"
            lines.append(f"  {many} of {markdown_text(records)}; decisive: {markdown_text(one.where)}.")
        if d.left_out:
            lines.append(f"  Settings left out, since only screened: {sum(d.left_out.values())}.")
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


STYLES = {"stands": "green", "refuted": "red", "not shown": "yellow", "no record": "dim"}


def claims_table(decisions: Sequence[Decision]) -> Table:
    """The table for a terminal: a row per claim."""
    table = Table(title=counts(decisions), title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("id", "claim", "verdict", "unadjusted", "by data set", "decisive reading"):
        table.add_column(name, overflow="fold")
    for d in decisions:
        one = d.found.decisive
        where = "" if one is None else f"{numbers(one)} ({_short(one.where)})"
        cells = (d.claim.id, d.claim.text, d.verdict, d.found.alone, by_data(d), where)
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
    return table


def _short(text: str) -> str:
    return text if len(text) <= SHORT else text[: SHORT - 3] + "..."


def write_claims(decisions: Sequence[Decision], storage: str) -> list[str]:
    """Write ``claims.md``, ``claims.csv`` and ``claims_readings.csv``; returns their paths."""
    target = Storage(storage)
    written = []
    for name, text in (
        ("claims.md", claims_markdown(decisions)),
        ("claims.csv", _csv(claims_frame(decisions))),
        ("claims_readings.csv", _csv(readings_frame(decisions))),
    ):
        target.write(f"{FOLDER}/{name}", text.encode())
        written.append(f"{storage}/{FOLDER}/{name}")
    return written


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format=f"%.{DIGITS}g")
