"""The board of several studies: ``python study/board.py study/results/*``.

For each data set and defense the best setting that is known, its verdict, and the command that runs it again.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.metrics.constants import MARGIN
from study.runtime.entry import DONE, USAGE, program
from study.runtime.plain import visible_line
from study.runtime.progress import Progress, loading
from study.runtime.signals import Interrupts, as_command, interruptible

KINDS = (".md", ".csv")


@dataclass(frozen=True)
class Arguments:
    """For each data set and defense the best setting that these studies know, and its verdict."""

    studies: Annotated[tuple[str, ...], tyro.conf.Positional]
    """folders of studies, compact copies, or s3://bucket/prefix/study. Folders without one are left out"""
    margin: float = MARGIN
    """accepted excess leakage, a share of label-only's error: all verdicts are to this margin, whatever the
    studies' own are"""
    out: Path | None = None
    """write the board there, as Markdown (.md) or with all columns (.csv); default: a table on the screen"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print or write the board.

    Returns:
        The exit code: 0 success, 2 invalid input, 128 + the number of a signal.
    """
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    chosen = tyro.cli(Arguments, args=arguments, prog=program("board"))
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if chosen.out is not None and chosen.out.suffix not in KINDS:
            raise ConfigError(f"--out {chosen.out}: the name must end in {' or '.join(KINDS)}")
        if not (math.isfinite(chosen.margin) and chosen.margin >= 0):
            raise ConfigError(f"--margin {chosen.margin}: must be 0 or more")
        if not chosen.studies:
            raise ConfigError("no study given; for instance: study/results/*")
        with loading(errors):
            from mipoison.storage.files import Storage
            from study.records.finished import NoStudyError, load
            from study.records.reading import announce_left_out
            from study.reports.board import board, board_markdown, board_tables, caption, judged_settings

        found = []
        with announce_left_out(lambda text: errors.print(text, markup=False)), Progress(errors) as progress:
            for i, place in enumerate(chosen.studies):
                progress.brief(f"reading {place}", i, len(chosen.studies))
                try:
                    found.append(judged_settings(load(place), place, chosen.margin))
                except NoStudyError as error:
                    errors.print(f"left out: {visible_line(error)}", markup=False)
        table = board(found)
        if table.empty:
            raise ConfigError("none of these folders holds a study with verdicts")
        if chosen.out is None:
            for one in board_tables(table):
                console.print(one)
            console.print(caption(chosen.margin), markup=False)
            return DONE
        text = table.to_csv(index=False) if chosen.out.suffix == ".csv" else board_markdown(table)
        if chosen.out.suffix == ".md":
            text += f"\n{caption(chosen.margin)}\n"
        Storage(chosen.out.parent).write(chosen.out.name, text.encode())
    except (ConfigError, OSError) as error:
        errors.print(f"error: {visible_line(error)}", style="bold red", markup=False)
        return USAGE
    except KeyboardInterrupt:
        errors.print(f"{interrupts.reason}; nothing is written", markup=False)
        return interrupts.exit_code
    console.print(
        f"written: {chosen.out} ({len(table)} rows of {len(found)} studies)", markup=False, soft_wrap=True
    )
    return DONE


if __name__ == "__main__":
    sys.exit(as_command(main))
