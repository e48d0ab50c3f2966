"""The files of a report: ``report.md``, ``frontier.png`` and ``reconstructions.png``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from mipoison.metrics.excess import MARGIN
from mipoison.storage.files import Storage
from study.analysis.frontier import configuration_table, pareto_front, selection_bias
from study.records.finished import StoredStudy
from study.records.store import Records
from study.reports.cells import describe
from study.reports.figures import figure_bytes, frontier_figure
from study.reports.leakage_panel import leakage_table
from study.reports.markdown import markdown, print_tables
from study.reports.reconstructions import reconstruction_figure
from study.reports.summary import summary


def write_report(
    records: Records,
    episodes: pd.DataFrame,
    front: pd.DataFrame,
    console: Console,
    *,
    fresh: pd.DataFrame | None = None,
    max_accuracy_drop: float,
    scale: str,
    margin: float = MARGIN,
    tables: bool = False,
) -> None:
    """At the end of a study, write the files of the report beside the episodes and print its answer.

    Args:
        fresh: episodes on held-out seeds. margin: accepted excess leakage (share of label-only's error).
        tables: print all tables of ``report.md`` before the answer.
    """
    about = {"study": records.study, "scale": scale}
    configurations = configuration_table(episodes, max_accuracy_drop=max_accuracy_drop, margin=margin)
    bias = None
    if fresh is not None:
        bias = selection_bias(configurations, fresh, max_accuracy_drop)
        records.storage.write(f"{records.study}/frontier_fresh.parquet", bias.to_parquet(index=False))
    info, leakage = describe(episodes, about), leakage_table(episodes)
    text = markdown(
        episodes,
        fresh,
        about=about,
        max_accuracy_drop=max_accuracy_drop,
        configurations=configurations,
        margin=margin,
    )
    records.storage.write(f"{records.study}/report.md", text.encode())
    for name, draw in (
        (
            "frontier.png",
            lambda path: frontier_figure(
                configurations, front, path, info, leakage=leakage, margin=margin, fresh=bias
            ),
        ),
        ("reconstructions.png", lambda path: reconstruction_figure(records, configurations, path, info)),
    ):
        data = figure_bytes(draw)
        if data is not None:
            records.storage.write(f"{records.study}/{name}", data)
    if tables:
        print_tables(
            episodes,
            fresh,
            console=console,
            about=about,
            max_accuracy_drop=max_accuracy_drop,
            configurations=configurations,
            margin=margin,
        )
    answer = summary(
        episodes, configurations, title_info=about, margin=margin, max_accuracy_drop=max_accuracy_drop
    )
    console.print("\n".join(answer), markup=False, soft_wrap=True)
    console.print(
        f"tables and figures: {records.storage.where(records.study)} (report.md, *.png, frontier.parquet)",
        soft_wrap=True,
        markup=False,
    )


def markdown_of(study: StoredStudy, configurations: pd.DataFrame | None = None) -> str:
    """The content of ``report.md`` of a finished study.

    Args:
        configurations: the study's ``configuration_table``; computed if None.
    """
    return markdown(
        study.episodes,
        study.fresh,
        about=study.title_info,
        max_accuracy_drop=study.max_accuracy_drop,
        configurations=configurations,
        margin=study.margin,
    )


def write_tables_and_figure(study: StoredStudy, out: Path) -> None:
    """Write ``report.md`` and ``frontier.png`` of a finished study into a folder."""
    target, drop = Storage(out), study.max_accuracy_drop
    configurations = configuration_table(study.episodes, max_accuracy_drop=drop, margin=study.margin)
    target.write("report.md", markdown_of(study, configurations).encode())
    bias = None if study.fresh is None else selection_bias(configurations, study.fresh, drop)
    info = describe(study.episodes, study.title_info)
    front = pareto_front(configurations)
    leakage = leakage_table(study.episodes)
    figure = figure_bytes(
        lambda path: frontier_figure(configurations, front, path, info, leakage=leakage, fresh=bias)
    )
    if figure is not None:
        target.write("frontier.png", figure)
