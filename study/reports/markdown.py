"""A study's tables: printed on a console, and as the Markdown text of ``report.md``."""

from __future__ import annotations

import io

from rich.console import Console

from study.reports.cells import describe
from study.reports.findings import Findings
from study.reports.summary import summary
from study.reports.tables import equal_distortion_report, fresh_report, print_report
from study.runtime.plain import fenced, markdown_text

MARKDOWN_WIDTH = 120


def print_tables(found: Findings, console: Console) -> None:
    """Print all tables of a study, computed from its records."""
    print_report(found, console=console)
    if found.fresh is not None and found.again is not None and found.bias is not None:
        console.print(fresh_report(found.bias, f"{found.info}; fresh: {describe(found.fresh)}"))
        console.print()
        console.print("On the fresh seeds alone:")
        console.print(equal_distortion_report(found.fresh, found.again, describe(found.fresh, found.about)))


def markdown(found: Findings) -> str:
    """The study's answer and its tables as a Markdown page. It depends on the argument alone."""
    sink = io.StringIO()
    console = Console(file=sink, width=MARKDOWN_WIDTH, color_system=None, force_terminal=False)
    print_tables(found, console)
    body = "\n".join(line.rstrip() for line in sink.getvalue().splitlines())
    first = fenced("\n".join(summary(found)))
    return (
        f"# {markdown_text(found.about['study'])}\n\n{first}\n\n![frontier](frontier.png)\n\n{fenced(body)}\n"
    )
