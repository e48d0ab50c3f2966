"""The paper's tables with ours beside them, from episode records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mipoison.attacks import PASSIVE
from mipoison.config import ConfigError
from mipoison.metrics.statistics import mean_interval, paired_difference
from mipoison.storage.files import Storage
from study.paper.experiments import FACES, MEASURES, RUNS, Row, folder_of, table_rows
from study.paper.notes import NOTES, TITLES
from study.paper.run import FOLDER, records_for
from study.records.finished import EPISODES, compact_episodes
from study.records.reading import Unreadable, fetch, leave_out
from study.records.reading.documents import MAX_JSON_BYTES, about_to_show
from study.records.store import STUDY_FILE
from study.reports.cells import describe
from study.runtime.plain import markdown_text

OURS = {
    "model_accuracy": ("protected_accuracy", 100.0, ".1f"),
    "confidence_distortion": ("confidence_distortion", 1.0, ".5f"),
    "attack_accuracy": ("attack_accuracy", 100.0, ".1f"),
    "cycle_accuracy": ("cycle_accuracy", 100.0, ".1f"),
    "reconstruction_error": ("reconstruction_error_paper_scale", 1.0, ".4f"),
    "reconstruction_error_unit": ("reconstruction_error", 1.0, ".5f"),
}
"""Ours: column of the records, factor, format. Of attack accuracy and error there are two readings each."""
HEADS = {
    "model_accuracy": "model acc. %",
    "confidence_distortion": "distortion",
    "attack_accuracy": "attack acc. %, evaluator",
    "cycle_accuracy": "attack acc. %, victim",
    "reconstruction_error": "error, paper's scale",
    "reconstruction_error_unit": "error, [0, 1]",
}
ORDERED = {"attack_accuracy": "attack acc.", "reconstruction_error": "error"}
"""Measures whose order against the reference row is compared with the paper's."""
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


@dataclass(frozen=True)
class Measured:
    """One of the paper's data sets as it was run: name, sizes, episodes; where its other files are."""

    name: str
    about: Mapping[str, Any]
    episodes: pd.DataFrame
    storage: Storage
    folder: str

    def values(self, row: Row, column: str) -> pd.Series:
        """Seed -> value of the row's episodes that succeeded; empty if it was not run or has none."""
        e = self.episodes
        if column not in e:  # a compact copy leaves out columns without a value
            return pd.Series(dtype=float)
        mask = (e["trial"] == row.trial) & (e["attack"] == row.attack) & (e["status"] == "ok")
        found: pd.Series = e[mask].set_index("seed")[column].dropna().sort_index().astype(float)
        return found

    def caption(self, seed: int | None = None) -> str:
        """Data, sizes, seeds (or one seed alone), device."""
        episodes = self.episodes if seed is None else self.episodes[self.episodes["seed"] == seed]
        return describe(episodes, {"scale": self.about["settings"].get("scale")})


def load(storage: str, faces: str) -> dict[str, Measured]:
    """One of RUNS -> what was run; those without records are left out.

    Raises:
        ConfigError: no records at all.
    """
    found = {}
    for run in RUNS:
        records = records_for(storage, folder_of(run, faces))
        try:
            stored = fetch(records.storage, f"{records.study}/{STUDY_FILE}", MAX_JSON_BYTES)
            if stored is None:
                continue
            about = about_to_show(stored, f"{records.study}/{STUDY_FILE}")
        except Unreadable as error:
            leave_out(f"{records.study}/{STUDY_FILE}", error)
            continue
        episodes = compact_episodes(records.storage, f"{records.study}/{EPISODES}")
        if episodes is None:
            episodes = records.read()
        if len(episodes):
            found[run] = Measured(records.study, about, episodes, records.storage, records.study)
    if not found:
        raise ConfigError(f"no records below {storage}/{FOLDER}: leave --render out to run the experiments")
    return found


def failed_share(found: Mapping[str, Measured]) -> float:
    """Share of failed episodes."""
    return float(np.mean([s == "failed" for m in found.values() for s in m.episodes["status"]]))


def verdict(row: Row, reference: Row, measure: str, measured: Measured) -> str:
    """Whether the paper's order of a row and its reference holds in ours, by the paired interval over "
    "seeds."""
    column = measure  # on either pixel scale the order is the same
    a, b = measured.values(row, column), measured.values(reference, column)
    seeds = a.index.intersection(b.index)
    if not len(seeds):
        return "not run"
    told = dict(row.paper), dict(reference.paper)
    if measure not in told[0] or measure not in told[1]:
        return ""
    claimed = np.sign(told[0][measure] - told[1][measure])
    difference = paired_difference(a[seeds].to_numpy(), b[seeds].to_numpy(), rng=np.random.default_rng(0))
    if len(seeds) < 3:
        return "too few seeds"
    if not difference.significant:
        return "no difference shown"
    if claimed == 0:
        return "equal in the paper"
    return "holds" if np.sign(difference.mean) == claimed else "reversed"


def against_lpa(row: Row, rows: Iterable[Row], measured: Measured) -> str:
    """A control against LPA under the same attacker (the nearest budget in Table VI), by the error."""
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


def table_frame(table: str, found: Mapping[str, Measured]) -> pd.DataFrame:
    """A table in long form, one row each: the paper's numbers, ours with 95 % intervals, the orderings."""
    rows = table_rows(table)
    order = [row.dataset for row in rows]
    out = []
    for row in sorted(rows, key=lambda row: order.index(row.dataset)):  # controls beside what they control
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
            scale = factor if measure in TIMES else 1.0  # the long form keeps shares as shares
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
    """One Markdown row: what is run, then paper | ours for each measure, then the orderings."""
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


def trained_well(measured: Measured) -> str:
    """Whether the undefended attacker beats the label alone and the mean image: if not, the tables say "
    "little."""
    none = Row("", "", "none", (), PASSIVE)
    floor = Row("", "", "label-only", (), PASSIVE)
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
    """Undefended attackers of a table who are no better than the mean image: no evidence for a defense."""
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


def table_markdown(table: str, found: Mapping[str, Measured]) -> str:
    """A table as a Markdown page with its notes; nothing in it depends on when or where it is rendered."""
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
    """Table IX's poisoning per sample, optimised and amortised, beside the paper's."""
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
    """``table_<n>.md`` and ``.csv`` below ``<storage>/reproduction``; returns the names written."""
    target, written = Storage(storage).below(FOLDER), []
    for table in tables:
        numbers = table_frame(table, found).to_csv(index=False, float_format="%.6g", lineterminator="\n")
        for end, text in (("md", table_markdown(table, found)), ("csv", numbers)):
            name = f"table_{table}.{end}"
            target.write(name, text.encode())
            written.append(target.where(name))
    return written
