"""A finished study's tables and figure, from its records alone: report.md and frontier.png."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mipoison.storage.files import Storage
from study.analysis.frontier import pareto_front, selection_bias, settings_table
from study.records.finished import StoredStudy
from study.reports.figures import drawn, frontier_figure
from study.reports.markdown import markdown
from study.reports.tables import describe


def markdown_of(study: StoredStudy, settings: pd.DataFrame | None = None) -> str:
    """The study's tables as Markdown (``settings``: its settings table, if it is there)."""
    return markdown(study.episodes, study.fresh, study.shown, study.max_accuracy_drop, settings)


def write_tables_and_figure(study: StoredStudy, out: Path) -> None:
    """Write report.md and frontier.png."""
    target, drop = Storage(out), study.max_accuracy_drop
    settings = settings_table(study.episodes, max_accuracy_drop=drop)
    target.write("report.md", markdown_of(study, settings).encode())
    bias = None if study.fresh is None else selection_bias(settings, study.fresh, drop)
    info = describe(study.episodes, study.shown)
    front = pareto_front(settings)
    figure = drawn(lambda path: frontier_figure(settings, front, path, info, fresh=bias))
    if figure is not None:
        target.write("frontier.png", figure)
