"""The files of a report: ``report.md``, ``frontier.png`` and ``reconstructions.png``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from mipoison.storage.files import Storage
from study.records.finished import StoredStudy
from study.records.store import Records
from study.reports.figures import figure_bytes, frontier_figure
from study.reports.findings import Findings
from study.reports.markdown import markdown, print_tables
from study.reports.reconstructions import reconstruction_figure
from study.reports.summary import summary


def write_report(records: Records, found: Findings, console: Console, *, tables: bool = False) -> None:
    """At the end of a study, write the files of the report beside the episodes and print its answer.

    Args:
        tables: print all tables of ``report.md`` before the answer.
    """
    folder = records.study
    if found.bias is not None:
        records.storage.write(f"{folder}/frontier_fresh.parquet", found.bias.to_parquet(index=False))
    _write_tables_and_figure(found, records.storage, f"{folder}/")
    pictures = figure_bytes(
        lambda path: reconstruction_figure(records, found.configurations, path, found.info)
    )
    if pictures is not None:
        records.storage.write(f"{folder}/reconstructions.png", pictures)
    if tables:
        print_tables(found, console)
    console.print("\n".join(summary(found)), markup=False, soft_wrap=True)
    console.print(
        f"tables and figures: {records.storage.where(folder)} (report.md, *.png, frontier.parquet)",
        soft_wrap=True,
        markup=False,
    )


def _write_tables_and_figure(found: Findings, storage: Storage, place: str) -> None:
    storage.write(f"{place}report.md", markdown(found).encode())
    figure = figure_bytes(
        lambda path: frontier_figure(
            found.configurations,
            found.front,
            path,
            found.info,
            leakage=found.leakage,
            identified=found.identified,
            margin=found.margin,
            fresh=found.bias,
        )
    )
    if figure is not None:
        storage.write(f"{place}frontier.png", figure)


def markdown_of(study: StoredStudy) -> str:
    """The content of ``report.md`` of a finished study."""
    return markdown(Findings.of(study))


def write_tables_and_figure(study: StoredStudy, out: Path) -> None:
    """Write ``report.md`` and ``frontier.png`` of a finished study into a folder."""
    _write_tables_and_figure(Findings.of(study), Storage(out), "")
