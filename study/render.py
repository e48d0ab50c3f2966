"""Write the tables and the figure of a finished study from its records, without running anything.

``python study/render.py results/digits-same`` renders a study's folder; ``--compact OUT`` also writes a small
copy of the records (two Parquet files and the settings), from which the same tables can be rendered.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mipoison.config import ConfigError
from study.runtime.arguments import parse
from study.runtime.entry import DONE, USAGE
from study.runtime.plain import visible_line
from study.runtime.progress import Progress, loading
from study.runtime.signals import Interrupts, as_command, interruptible


@dataclass(frozen=True)
class Arguments:
    """Render a study's tables (report.md) and its frontier (frontier.png) from Parquet."""

    folder: Annotated[Path, tyro.conf.Positional]
    """a study's folder, or a compact copy of one"""
    out: Path | None = None
    """where report.md and frontier.png go; default: the folder itself"""
    compact: Path | None = None
    """also write a compact copy of the records (and the page) there: no images, ready to be committed"""
    most_mb: float = 1.5
    """with --compact: megabytes of a file of records; nothing is written there if one would have more"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Render; returns the exit code: 0 success, 2 invalid input, 128 + the number of a signal."""
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    chosen = parse(Arguments, arguments, "render")
    console = Console(highlight=False, soft_wrap=True)
    parts = 3 if chosen.compact else 2
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    out = chosen.out or chosen.folder
    try:
        with loading(console):
            from study.records.finished import load, write_compact
            from study.records.reading import announce_left_out
            from study.reports.columns import shown_in_reports
            from study.reports.report_files import write_tables_and_figure

        with Progress(console) as progress, announce_left_out(lambda text: errors.print(text, markup=False)):
            progress.brief("reading the records", 0, parts)
            study = load(chosen.folder, wanted=None if chosen.compact else shown_in_reports)
            progress.brief("writing tables and figure", 1, parts)
            write_tables_and_figure(study, out)
            if chosen.compact is not None:
                progress.brief("writing the compact copy", 2, parts)
                write_compact(study, chosen.compact, round(chosen.most_mb * 1e6))
                write_tables_and_figure(study, chosen.compact)
    except (ConfigError, OSError) as error:
        errors.print(f"error: {visible_line(error, 2000)}", markup=False)
        return USAGE
    except KeyboardInterrupt:
        errors.print(f"{interrupts.reason}; files that were written are complete", markup=False)
        return interrupts.exit_code
    console.print(f"written: {out}/report.md, {out}/frontier.png", markup=False)
    return DONE


if __name__ == "__main__":
    sys.exit(as_command(main))
