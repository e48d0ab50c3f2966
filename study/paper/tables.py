"""The paper's tables with our measurements beside them, as CSV and Markdown files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from mipoison.metrics.statistics import mean_interval
from mipoison.storage.files import Storage
from study.paper.comparisons import against_lpa, learned_nothing, trained_well, verdict
from study.paper.experiments import FACES, MEASURES, table_rows
from study.paper.measured import Measured
from study.paper.notes import NOTES, TITLES
from study.paper.run import FOLDER
from study.runtime.plain import markdown_text

OURS = {
    "model_accuracy": ("protected_accuracy", 100.0, ".1f"),
    "confidence_distortion": ("confidence_distortion", 1.0, ".5f"),
    "attack_accuracy": ("attack_accuracy", 100.0, ".1f"),
    "cycle_accuracy": ("cycle_accuracy", 100.0, ".1f"),
    "reconstruction_error": ("reconstruction_error_paper_scale", 1.0, ".4f"),
    "reconstruction_error_unit": ("reconstruction_error", 1.0, ".5f"),
}
"""Measure -> column of the records, factor, format. Attack accuracy and error are measured in two ways."""
HEADS = {
    "model_accuracy": "model acc. %",
    "confidence_distortion": "distortion",
    "attack_accuracy": "attack acc. %, evaluator",
    "cycle_accuracy": "attack acc. %, victim",
    "reconstruction_error": "error, paper's scale",
    "reconstruction_error_unit": "error, [0, 1]",
}
ORDERED = {"attack_accuracy": "attack acc.", "reconstruction_error": "error"}
"""Measures whose order relative to the reference row is compared with the paper's."""
TIMES = {
    "training": ("seconds_attack", 1.0, "s"),
    "inference": ("inference_ms_per_sample", 1.0, "ms"),
    "poisoning": ("poison_ms_per_sample", 1.0, "ms"),
}


HOW_TO_READ = (
    "Ours: mean [95 % Student-t interval] over seeds. Attack accuracy by an independent evaluator and by the "
    "victim itself; error on the paper's pixel scale and as MSE in [0, 1]. *Holds*, *reversed*: the paired "
    "difference to the reference row (undefended; LPA in VII and X) has an interval without zero, and the "
    "paper's sign or the other."
)


def table_frame(table: str, found: Mapping[str, Measured]) -> pd.DataFrame:
    """A table as a data frame: the paper's numbers, ours with 95 % intervals, whether the orders agree."""
    rows = table_rows(table)
    order = [row.dataset for row in rows]
    out = []
    for row in sorted(
        rows, key=lambda row: order.index(row.dataset)
    ):  # a data set's controls follow its rows
        measured = found.get(row.run)
        line: dict[str, Any] = {
            "table": table,
            "data": row.dataset,
            "run_on": measured.name if measured else "",
            "defense": row.defense,
            "setting": row.setting,
            "knobs": ", ".join(f"{k}={v}" for k, v in row.knobs),
            "attacker": row.attack,
            "ours": row.ours,
        }
        line |= {f"paper.{m}": dict(row.paper).get(m) for m in MEASURES}
        line["paper.note"] = row.note or None
        line["seeds"] = 0 if measured is None else len(measured.values(row, "reconstruction_error"))
        columns = {m: (column, factor) for m, (column, factor, _) in OURS.items()}
        if table == "VIII":
            columns |= {m: (column, factor) for m, (column, factor, _) in TIMES.items()}
        for measure, (column, factor) in columns.items():
            values = measured.values(row, column) if measured else pd.Series(dtype=float)
            scale = factor if measure in TIMES else 1.0  # shares stay shares in the data frame
            interval = mean_interval(values.to_numpy() * scale) if len(values) else None
            line[f"ours.{measure}"] = interval.mean if interval else None
            line[f"ours.{measure}.low"] = interval.low if interval else None
            line[f"ours.{measure}.high"] = interval.high if interval else None
            if measure in TIMES:
                line[f"ours.{measure}.sd"] = float(values.std(ddof=1)) if len(values) > 1 else None
        for measure in ORDERED:
            reference = rows[row.reference] if row.reference is not None else None
            line[f"ordering.{measure}"] = (
                verdict(row, reference, measure, measured) if measured and reference else ""
            )
        line["against_lpa"] = against_lpa(row, rows, measured) if measured and row.ours else ""
        out.append(line)
    return pd.DataFrame(out)


def _ours(line: Mapping[str, Any], measure: str) -> str:
    _, factor, form = OURS[measure]
    mean, low, high = (line[f"ours.{measure}{end}"] for end in ("", ".low", ".high"))
    if pd.isna(mean):
        return "-"
    text = format(mean * factor, form)
    return text if pd.isna(low) else f"{text} [{format(low * factor, form)}, {format(high * factor, form)}]"


def _paper(line: Mapping[str, Any], measure: str) -> str:
    value, (_, factor, form) = line[f"paper.{measure}"], OURS[measure]
    return "-" if pd.isna(value) else format(value * factor, form)


def _cells(line: Mapping[str, Any]) -> list[str]:
    """The cells of a Markdown row: what was run, the paper's and our value of each measure, the orders."""
    data = line["data"] if line["run_on"] in ("", line["data"]) else f"{line['data']} ({line['run_on']})"
    name = f"*{line['defense']}* (ours)" if line["ours"] else line["defense"]
    cells = [data, name, line["setting"] or "", line["attacker"]]
    for measure in OURS:
        if measure in MEASURES:
            cells.append(_paper(line, measure))
        cells.append(_ours(line, measure))
    orders = [f"{ORDERED[m]}: {line[f'ordering.{m}']}" for m in ORDERED if line[f"ordering.{m}"]]
    if line["against_lpa"]:
        orders = [line["against_lpa"]]
    if not line["seeds"]:
        orders = ["not run"]
    return [*cells, "; ".join(orders)]


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _heads() -> list[str]:
    heads = ["data (run on)", "defense", "setting", "attacker"]
    for measure in OURS:
        if measure in MEASURES:
            heads.append(f"{HEADS[measure].split(',')[0]}: paper")
        heads.append(f"{HEADS[measure]}: ours")
    return [*heads, "does the paper's order hold?"]


def _time_cells(line: Mapping[str, Any]) -> list[str]:
    data = line["data"] if line["run_on"] in ("", line["data"]) else f"{line['data']} ({line['run_on']})"
    cells = [data, line["paper.note"] or ""]
    for measure, (_, _, unit) in TIMES.items():
        mean, sd = line[f"ours.{measure}"], line[f"ours.{measure}.sd"]
        spread = "" if pd.isna(sd) else f" (sd {sd:.2g})"
        cells.append("not run" if pd.isna(mean) else f"{mean:.3g} {unit}{spread}")
    a, b = line["ours.poisoning"], line["ours.inference"]
    return [*cells, "-" if pd.isna(a) or not b else f"{a / b:.1f}"]


def table_markdown(table: str, found: Mapping[str, Measured]) -> str:
    """A table as a Markdown page with its notes. It depends on the records alone, not on time or machine."""
    frame = table_frame(table, found)
    lines: list[dict[str, Any]] = [{str(k): v for k, v in r.items()} for r in frame.to_dict("records")]
    if table == "VIII":
        heads = ["data (run on)", "paper", "training: ours", "inference: ours", "poisoning: ours"]
        body = _markdown([*heads, "poisoning / inference"], [_time_cells(line) for line in lines])
    else:
        body = _markdown(_heads(), [_cells(line) for line in lines])
    used = [m for run, m in found.items() if any(row.run == run for row in table_rows(table))]
    parts = [f"# Table {table}: {TITLES[table]}", body, HOW_TO_READ]
    parts += [f"- {note}" for note in NOTES.get(table, ())]
    if table == "IX":
        parts += [f"- {line}" for line in _poisoning_times(found)]
    if any(row.dataset == FACES for row in table_rows(table)):
        parts.append(
            "- FaceScrub cannot be redistributed; its rows are run on the data set named in brackets."
        )
    parts += [f"- {trained_well(m)}" for m in used]
    parts += [f"- {line}" for line in learned_nothing(table, found)]
    parts += [f"- Run: {markdown_text(m.caption())}." for m in used]
    return "\n\n".join(parts) + "\n"


def _poisoning_times(found: Mapping[str, Measured]) -> list[str]:
    """Poisoning time per sample in Table IX, optimised and amortised, beside the paper's."""
    took = {}
    for row in table_rows("IX"):
        measured = found.get(row.run)
        values = measured.values(row, "poison_ms_per_sample") if measured else pd.Series(dtype=float)
        if row.note and len(values):
            took[row.defense] = float(values.mean()), row.note
    lines = [
        f"Poisoning, {name}: {ms:.3g} ms a sample here; the paper: {note}."
        for name, (ms, note) in took.items()
    ]
    if len(took) == 2:
        (slow, _), (fast, _) = took.values()
        lines.append(
            f"Optimised over amortised, in the same run: {slow / fast:.1f} times; in the paper 10.9."
        )
    return lines


def write_tables(found: Mapping[str, Measured], tables: Iterable[str], storage: str) -> list[str]:
    """Write ``table_<n>.md`` and ``.csv`` below ``<storage>/reproduction``; return what was written."""
    target, written = Storage(storage).below(FOLDER), []
    for table in tables:
        numbers = table_frame(table, found).to_csv(index=False, float_format="%.6g", lineterminator="\n")
        for end, text in (("md", table_markdown(table, found)), ("csv", numbers)):
            name = f"table_{table}.{end}"
            target.write(name, text.encode())
            written.append(target.where(name))
    return written
