"""A study's tables: printed on a console, and as the Markdown text of ``report.md``."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pandas as pd
from rich.console import Console

from mipoison.metrics.excess import MARGIN
from study.analysis.frontier import configuration_table, selection_bias
from study.reports.cells import describe
from study.reports.summary import summary
from study.reports.tables import equal_distortion_report, fresh_report, print_report
from study.runtime.plain import fenced, markdown_text

MARKDOWN_WIDTH = 120


def print_tables(
    episodes: pd.DataFrame,
    fresh: pd.DataFrame | None,
    *,
    console: Console,
    about: Mapping[str, object],
    max_accuracy_drop: float,
    configurations: pd.DataFrame | None = None,
    margin: float = MARGIN,
) -> None:
    """Print all tables of a study, computed from its records.

    Args:
        fresh: episodes on held-out seeds, None without.
        about: name and scale of the study, for captions.
        configurations: the ``configuration_table`` of the episodes; computed here if None.
        margin: accepted excess leakage (share of label-only's error).
    """
    if configurations is None:
        configurations = configuration_table(episodes, max_accuracy_drop=max_accuracy_drop, margin=margin)
    print_report(
        episodes,
        configurations,
        console=console,
        title_info=about,
        max_accuracy_drop=max_accuracy_drop,
        margin=margin,
    )
    if fresh is not None and len(fresh):
        bias = selection_bias(configurations, fresh, max_accuracy_drop)
        console.print(fresh_report(bias, f"{describe(episodes, about)}; fresh: {describe(fresh)}"))
        console.print()
        console.print("On the fresh seeds alone:")
        again = configuration_table(fresh, max_accuracy_drop=max_accuracy_drop)
        console.print(equal_distortion_report(fresh, again, describe(fresh, about)))


def markdown(
    episodes: pd.DataFrame,
    fresh: pd.DataFrame | None,
    *,
    about: Mapping[str, object],
    max_accuracy_drop: float,
    configurations: pd.DataFrame | None = None,
    margin: float = MARGIN,
) -> str:
    """The study's answer and its tables as a Markdown page. It depends on the arguments alone.

    Args: see :func:`print_tables`.
    """
    if configurations is None:
        configurations = configuration_table(episodes, max_accuracy_drop=max_accuracy_drop, margin=margin)
    answer = summary(
        episodes, configurations, title_info=about, margin=margin, max_accuracy_drop=max_accuracy_drop
    )
    sink = io.StringIO()
    console = Console(file=sink, width=MARKDOWN_WIDTH, color_system=None, force_terminal=False)
    print_tables(
        episodes,
        fresh,
        console=console,
        about=about,
        max_accuracy_drop=max_accuracy_drop,
        configurations=configurations,
        margin=margin,
    )
    body = "\n".join(line.rstrip() for line in sink.getvalue().splitlines())
    first = fenced("\n".join(answer))
    return f"# {markdown_text(about['study'])}\n\n{first}\n\n![frontier](frontier.png)\n\n{fenced(body)}\n"
