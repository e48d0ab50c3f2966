"""Tables of the reference pages, generated from the registries, so that no second list has to be maintained.

A line ``<!-- table: NAME -->`` of a page, with a name of ``TABLES``, is replaced by the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mipoison.attacks import ATTACKS, SUITE
from mipoison.attacks.views import VIEWS
from mipoison.config import span
from mipoison.defenses import DEFENSES
from mipoison.metrics import checks_table
from study.records.finished import load
from study.reports.board import board, board_markdown, judged_settings
from study.reports.registered_tables import COSTS
from study.settings.study_settings import DEFAULT_ATTACKERS

ROOT = Path(__file__).parents[1]

MARK = re.compile(r"^<!-- table: (\S+) -->$", flags=re.MULTILINE)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars within a cell are escaped."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Code of a docstring (two backticks) as Markdown writes it (one)."""
    return text.replace("``", "`")


def defenses() -> str:
    """A row per defense: what it does, its knobs in a search, whether it reads the image, its source."""
    rows = []
    for name, config in DEFENSES.items():
        knobs = [f"`{knob}`: {entry.help} ({span(entry)})" for knob, entry in config.KNOBS.items()]
        reads = "yes" if config().make().reads_image else "no"
        rows.append((f"`{name}`", code(config.summary()), "<br>".join(knobs), reads, config.SOURCE))
    return markdown(("name", "what it does", "knobs", "reads the image", "source"), rows)


def attackers() -> str:
    """A row per attacker: what it does, its options, its cost, whether suite or default run has it."""
    rows = []
    for name, config in ATTACKS.items():
        options = "<br>".join(f"`{option}={value}`" for option, value in config.changed().items())
        suite = "by default" if name in DEFAULT_ATTACKERS else "yes" if name in SUITE else "no"
        rows.append((f"`{name}`", code(config.summary()), options, COSTS[config.COST], suite))
    return markdown(("name", "what it does", "options", "cost", "in the suite"), rows)


def views() -> str:
    """A row per view: how an attacker transforms released vectors first."""
    rows = []
    for name, view in VIEWS.items():
        rows.append((f"`{name}`", code(" ".join((view.__doc__ or "").partition("\n\n")[0].split()))))
    return markdown(("view", "what it does to released vectors"), rows)


def checks() -> str:
    """A row per validity check: when it is raised, and what that means."""
    rows = [(f"`{column.removeprefix('check.')}`", raised, means) for column, raised, means in checks_table()]
    return markdown(("check", "raised if", "means"), rows)


def committed_board() -> str:
    """The board of the repository's studies."""
    places = sorted(path.parent for path in (ROOT / "study" / "results").glob("*/study.json"))
    return board_markdown(board([judged_settings(load(p), p.relative_to(ROOT).as_posix()) for p in places]))


TABLES: dict[str, Callable[[], str]] = {
    "defenses": defenses,
    "attackers": attackers,
    "views": views,
    "checks": checks,
    "board": committed_board,
}


def with_tables(text: str) -> str:
    """A page's Markdown with its tables inserted.

    Raises:
        KeyError: a mark names no table.
    """
    return MARK.sub(lambda mark: TABLES[mark[1]](), text)
