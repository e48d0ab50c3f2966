"""The files of a report: ``report.md``, ``frontier.png`` and ``reconstructions.png``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from mipoison.storage.files import Storage
from study.analysis.frontier import configuration_table, pareto_front, selection_bias
from study.records.finished import StoredStudy
from study.records.store import Records
from study.reports.cells import describe
from study.reports.figures import figure_bytes, frontier_figure
from study.reports.markdown import markdown, print_tables
from study.reports.reconstructions import reconstruction_figure


def write_report(
    records: Records,
    episodes: pd.DataFrame,
    front: pd.DataFrame,
    console: Console,
    *,
    fresh: pd.DataFrame | None = None,
    max_accuracy_drop: float,
    scale: str,
) -> None:
    """At the end of a study, print its tables and write the files of the report beside the episodes."""
    about = {"study": records.study, "scale": scale}
    configurations = configuration_table(episodes, max_accuracy_drop=max_accuracy_drop)
    bias = None
    if fresh is not None:
        bias = selection_bias(configurations, fresh, max_accuracy_drop)
        records.storage.write(f"{records.study}/frontier_fresh.parquet", bias.to_parquet(index=False))
    print_tables(episodes, fresh, console, about, max_accuracy_drop, configurations)
    info = describe(episodes, about)
    text = markdown(episodes, fresh, about, max_accuracy_drop, configurations)
    records.storage.write(f"{records.study}/report.md", text.encode())
    for name, draw in (
        ("frontier.png", lambda path: frontier_figure(configurations, front, path, info, fresh=bias)),
        ("reconstructions.png", lambda path: reconstruction_figure(records, configurations, path, info)),
    ):
        data = figure_bytes(draw)
        if data is not None:
            records.storage.write(f"{records.study}/{name}", data)
    console.print(
        f"written to {records.storage.where(records.study)}: "
        "episodes/*.parquet, frontier.parquet, report.md, *.png",
        soft_wrap=True,
        markup=False,
    )


def markdown_of(study: StoredStudy, configurations: pd.DataFrame | None = None) -> str:
    """The content of ``report.md`` of a finished study.

    Args:
        configurations: the study's ``configuration_table``; computed if None.
    """
    return markdown(study.episodes, study.fresh, study.title_info, study.max_accuracy_drop, configurations)


def write_tables_and_figure(study: StoredStudy, out: Path) -> None:
    """Write ``report.md`` and ``frontier.png`` of a finished study into a folder."""
    target, drop = Storage(out), study.max_accuracy_drop
    configurations = configuration_table(study.episodes, max_accuracy_drop=drop)
    target.write("report.md", markdown_of(study, configurations).encode())
    bias = None if study.fresh is None else selection_bias(configurations, study.fresh, drop)
    info = describe(study.episodes, study.title_info)
    front = pareto_front(configurations)
    figure = figure_bytes(lambda path: frontier_figure(configurations, front, path, info, fresh=bias))
    if figure is not None:
        target.write("frontier.png", figure)
