"""Markdown of a study: the tables, whatever the terminal; pictures of the settings that are worth one."""

import io

import pandas as pd
from rich.console import Console

from study.records.constraints import Constraints
from study.reports.findings import Findings
from study.reports.markdown import MARKDOWN_WIDTH, markdown, print_tables


def findings(episodes: pd.DataFrame, fresh: pd.DataFrame | None = None) -> Findings:
    about = {"study": "a*b", "scale": "quick"}
    return Findings(episodes=episodes, fresh=fresh, about=about, constraints=Constraints())


def test_the_page_holds_the_terminals_tables(episodes: pd.DataFrame) -> None:
    text = markdown(findings(episodes))
    assert text.startswith("# a\\*b\n\n```text\nDEPLOY ")  # a name is no markup; the answer comes first
    assert "\n```\n\n![frontier](frontier.png)\n" in text
    sink = io.StringIO()
    console = Console(file=sink, width=MARKDOWN_WIDTH, color_system=None)
    print_tables(findings(episodes), console)
    body = "\n".join(line.rstrip() for line in sink.getvalue().splitlines())
    assert body.strip() in text
    assert "\x1b" not in text
    assert markdown(findings(episodes)) == text


def test_fresh_seeds_have_tables_of_their_own(episodes: pd.DataFrame) -> None:
    fresh = episodes.assign(seed=episodes["seed"] + 100)
    text = markdown(findings(episodes, fresh))
    assert text.count("On the fresh seeds alone:") == 1
    assert "On the fresh seeds alone:" not in markdown(findings(episodes))
