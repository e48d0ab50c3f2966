"""The board: for each data set and defense the best setting that several studies know, and its verdict.

A setting that several studies of the same data judged counts with the worst of its verdicts: it is known to
leak if one study saw it leak. ``safe`` is a claim about attackers, so that it needs those of today's default
suite: in a study that lacks one of them it is ``outdated``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from mipoison.metrics.constants import MARGIN
from study.analysis.knobs import knobs_text
from study.records.finished import StoredStudy
from study.reports.cells import data_name
from study.reports.commands import rerun_commands
from study.reports.findings import Findings
from study.reports.leakage import EXCESS, WORST_ATTACKER
from study.reports.rounding import upper_limit
from study.runtime.plain import markdown_text, visible_line
from study.settings.study_settings import DEFAULT_ATTACKERS

OUTDATED = "outdated"
"""Safe against the attackers of its study, which lack some of today's default suite."""
CLAIMS = ("certified", "safe", OUTDATED, "undecided", "leaks")
"""Verdicts, the strongest claim first. Settings without one are not on the board."""
DATA = ("data", "auxiliary", "images", "scale", "victim")
"""What studies must have in common for their verdicts on one setting to be about the same thing: data set,
classes of the attacker's images, limit of training images a side, the study's scale (steps of victim and
attackers), and the classifier."""
COLUMNS = (
    *DATA, "defense", "knobs", "verdict", "distortion", "accuracy drop", "excess", "excess at most",
    "certified excess", "worst attacker", "attackers", "lacking", "seeds", "studies", "study", "trial",
    "command",
)  # fmt: skip
"""Of the board. ``excess``: what the suite's best attacker gained over label-only, a share of label-only's
error; ``excess at most``: the upper end of its one-sided 95 % interval. Both are of private train or test
images, whichever has the larger upper end.
``attackers``, ``seeds``: how many the row rests on. ``lacking``: attackers of today's default suite that are
not among them. ``studies``: how many judged this setting."""


def judged_settings(study: StoredStudy, place: str, margin: float = MARGIN) -> pd.DataFrame:
    """One row per setting of a study that has a verdict, with COLUMNS.

    Args:
        place: the study's path or address, for the command that runs a setting again.
        margin: of the verdicts, whatever the study's own is, so that those of several studies say the same.
    """
    found = dataclasses.replace(Findings.of(study), margin=margin)
    table = found.configurations.merge(found.verdicts, on="trial", how="left").dropna(subset=["verdict"])
    table = table[table["feasible"].fillna(False).astype(bool)]
    commands, scene = rerun_commands(study, place), _scene(study)
    ran = study.episodes[study.episodes["status"] == "ok"]
    attackers = {str(trial): set(names) for trial, names in ran.groupby("trial")["attack"]}
    worst = found.leakage.set_index("trial")
    rows = []
    for _, row in table.iterrows():
        trial = str(row["trial"])
        faced = attackers.get(trial, set())
        lacking = [name for name in DEFAULT_ATTACKERS if name not in faced]
        verdict = str(row["verdict"])
        rows.append(
            {
                **scene,
                "defense": str(row["defense"]),
                "knobs": knobs_text(row),
                "verdict": OUTDATED if verdict == "safe" and lacking else verdict,
                "distortion": row["confidence_distortion"],
                "accuracy drop": row["accuracy_drop"],
                "excess": worst[EXCESS].get(trial),
                "excess at most": worst[f"{EXCESS}_high"].get(trial),
                "certified excess": row["certified_excess_worst"],
                "worst attacker": worst[WORST_ATTACKER].get(trial),
                "attackers": len(faced),
                "lacking": ", ".join(lacking),
                "seeds": int(row["n_seeds"]),
                "studies": 1,
                "study": study.name,
                "trial": trial,
                "command": commands[trial],
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def board(settings: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The board of several studies: one row per data (DATA) and defense, with COLUMNS.

    The row is the certified setting of least distortion; if there is none, the safe one of least distortion;
    else the outdated, the undecided or the leaking one, in this order, of which an attacker gains least.

    Args:
        settings: of each study, from :func:`judged_settings`.
    """
    some = [one for one in settings if len(one)]
    if not some:
        return pd.DataFrame(columns=list(COLUMNS))
    everything = pd.concat(some, ignore_index=True)
    everything["rank"] = everything["verdict"].map(CLAIMS.index)
    setting = [*DATA, "defense", "knobs"]
    everything["studies"] = everything.groupby(setting, dropna=False)["study"].transform("nunique")
    everything = everything.sort_values(
        ["rank", "excess", "study", "trial"], ascending=[False, False, True, True], kind="stable"
    )
    worst = everything.drop_duplicates(setting)
    # Among claims by their price, among the others by what is known to leak.
    claimed = worst["rank"] < CLAIMS.index(OUTDATED)
    worst = worst.assign(price=worst["distortion"].where(claimed, worst["excess"]).astype("Float64"))
    worst = worst.sort_values([*DATA, "rank", "price", "defense", "trial"], kind="stable")
    return worst.drop_duplicates([*DATA, "defense"])[list(COLUMNS)].reset_index(drop=True)


def _scene(study: StoredStudy) -> Mapping[str, Any]:
    first = study.episodes.iloc[0]
    limit = first.get("scene.limit")
    return {
        "data": data_name(first["dataset"]),
        "auxiliary": str(first["auxiliary"]),
        "images": "all" if pd.isna(limit) else f"{int(limit)}",
        "scale": str(study.title_info["scale"] or "unknown"),
        "victim": str(first["victim"]),
    }


def caption(margin: float = MARGIN) -> str:
    """What the board's words and numbers mean."""
    return (
        "excess: what the best attacker of the study gained over label-only, a share of its error, on "
        "private train or test images, whichever has the larger upper limit; at most: this one-sided 95 % "
        "limit, rounded up. "
        "certified excess: no attacker gains more, on any seed; it is exact: 0 for label-only, "
        "whose measured limit is above 0 only as seeds are few. All verdicts are to a margin of "
        f"{margin:g}, whatever a study's own is; safe and leaks are said at 95 % confidence. "
        "outdated: safe in a study that lacks attackers of today's default suite. Only settings within "
        "their study's constraints."
    )


CELLS = {
    "distortion": ".3g",
    "accuracy drop": ".3g",
    "excess": ".3f",
    "excess at most": ".3f",
    "certified excess": ".3f",
}
"""Columns of numbers that are shown, and their forms."""
BOUNDS = ("excess at most", "certified excess")
"""Those that are bounds from above, which are rounded up."""


def cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the board as text: what a reader compares, and the command that runs a row again."""
    head = ["data", "defense", "verdict", *CELLS, "worst attacker", "attackers", "seeds", "run it again"]
    rows = []
    for _, row in table.iterrows():
        data = [str(row["data"])]
        data += [f"other classes ({row['auxiliary']})"] if row["auxiliary"] != "same" else []
        data += [f"{row['images']} images a side", f"scale {row['scale']}"]
        lacking = f" (without {row['lacking']})" if row["lacking"] else ""
        rows.append(
            [
                ", ".join(data),
                f"{row['defense']} {row['knobs']}".strip(),
                row["verdict"],
                *(_number(row[name], form, name in BOUNDS) for name, form in CELLS.items()),
                "-" if pd.isna(row["worst attacker"]) else str(row["worst attacker"]),
                f"{row['attackers']}{lacking}",
                f"{row['seeds']}",
                row["command"],
            ]
        )
    return head, [[visible_line(cell) for cell in line] for line in rows]


def _number(value: Any, form: str, bound: bool) -> str:
    return upper_limit(value) if bound else "-" if pd.isna(value) else format(value, form)


SITE = ("defense", "verdict", "distortion", "excess (at most)", "certified excess", "worst attacker",
        "attackers, seeds", "run it again")  # fmt: skip
"""Columns of the board in Markdown."""


def board_markdown(table: pd.DataFrame) -> str:
    """The board in Markdown: a heading and a table for each data set."""
    head, rows = cells(table)
    lines: list[str] = []
    data = None
    for row in rows:
        cell = dict(zip(head, row, strict=True))
        if cell["data"] != data:
            data = cell["data"]
            lines += ["", f"### {markdown_text(data)}", "", _line(SITE), _line(["---"] * len(SITE))]
        cell["excess (at most)"] = f"{cell['excess']} ({cell['excess at most']})"
        cell["attackers, seeds"] = f"{cell['attackers']}, {cell['seeds']}"
        lines.append(_line([*(markdown_text(cell[name]) for name in SITE[:-1]), _code(cell[SITE[-1]])]))
    return "\n".join(lines[1:]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


NARROW = ("verdict", "distortion", "excess", "excess at most", "certified excess")
"""Columns of the board that a terminal of 80 columns has room for, beside the setting."""
_SETTING_WIDTH = 26
"""Columns of a terminal for a setting."""


def board_tables(table: pd.DataFrame) -> list[Table]:
    """The board for a terminal: a table for each data set.

    A setting has a line each for the defense, its knobs, and study and trial, which stand for the command.
    """
    head, rows = cells(table)
    tables: dict[str, Table] = {}
    for line, (_, row) in zip(rows, table.iterrows(), strict=True):
        if line[0] not in tables:
            tables[line[0]] = Table(
                title=line[0], title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
            )
            tables[line[0]].add_column("setting", overflow="fold", min_width=_SETTING_WIDTH)
            for name in NARROW:
                justify: Literal["left", "right"] = "right" if name in CELLS else "left"
                tables[line[0]].add_column("\n".join(name.split(maxsplit=1)), justify=justify, no_wrap=True)
        shown = [cell for name, cell in zip(head, line, strict=True) if name in NARROW]
        tables[line[0]].add_row(_setting(row), *map(Text, shown))
    return list(tables.values())


def _setting(row: pd.Series) -> Text:
    """A setting's lines, each within the width of its column where its words are short enough."""
    origin = f"{row['study']}, {row['trial']}"
    return Text("\n").join(
        Text(visible_line(text), style=style)
        for text, style in ((row["defense"], "bold"), (row["knobs"], ""), (origin, "dim"))
        if text
    )


def _code(line: str) -> str:
    """A command as code, in a cell; as escaped text where it has a character that would end either."""
    return markdown_text(line) if {"`", "|"} & set(line) else f"`{line}`"
