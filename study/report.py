"""Write a self-contained HTML page of one study or several from their records, and a privacy label."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.data.datasets import DataError
from study.runtime.arguments import parse
from study.runtime.entry import DONE, USAGE
from study.runtime.plain import visible_line
from study.runtime.progress import Progress, loading
from study.runtime.signals import Interrupts, as_command, interruptible


@dataclass(frozen=True)
class Arguments:
    """Write report.html (verdict, charts, tables; no network) and the privacy label of a setting."""

    studies: Annotated[tuple[str, ...], tyro.conf.Positional]
    """a study's folder, a compact copy of one, or s3://bucket/prefix/study. Several are compared
    on one page"""
    out: Path | None = None
    """the file to write; default: report.html beside the records, of several studies comparison.html beside
    those of the first"""
    vectors: Literal["auto", "yes", "no"] = "auto"
    """clean against released vectors: auto (if trained parts are there), yes (trains what is missing), no"""
    victim: str | None = None
    """for the vectors, if the study is of a user's own classifier: module:factory or file.pt2, as for
    pareto.py. Both run code; a classifier that only the records name is never loaded"""
    victim_state: str | None = None
    """weights for --victim module:factory"""
    label: str | None = None
    """the setting whose privacy label is written beside the page, as label.json and label.md; t0012 stands
    for t0012-noise. Default: the setting that the study recommends, if it recommends one. Of several studies
    no label is written"""
    data_root: Path | None = None
    """data folder, for the vectors; default $MIPOISON_DATA or ~/.cache/mipoison/data"""


EXAMPLES = (
    "results/digits-same",
    "study/results/mnist-suite --out mnist.html",
)
"""Shown by ``--help``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; returns the exit code: 0 success, 2 invalid input, 128 + the number of a signal."""
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    chosen = parse(Arguments, arguments, "report", examples=EXAMPLES)
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    wanted = {"auto": None, "yes": True, "no": False}[chosen.vectors]
    root = None if chosen.data_root is None else str(chosen.data_root.expanduser().resolve())
    try:
        if not chosen.studies:
            raise ConfigError("no study: name one folder or more")
        if len(chosen.studies) > 1 and chosen.label is not None:
            raise ConfigError("--label is of one study: name one")
        with loading(errors):
            from mipoison.storage.files import Storage
            from study.records.finished import load
            from study.records.reading import announce_left_out
            from study.reports.columns import shown_in_reports
            from study.reports.html import PAGE, SEVERAL, Source, VectorOptions, build_page
            from study.reports.label import JSON_NAME, label, write_labels
            from study.trial.rerun import GivenVictim

        with announce_left_out(lambda text: errors.print(text, markup=False)), Progress(errors) as progress:
            progress.brief("reading the records", 0, 2)
            sources = [
                Source.of(load(place, wanted=shown_in_reports), place)
                for place in dict.fromkeys(chosen.studies)
            ]
            first, alone = sources[0], len(sources) == 1
            made = first.label if alone else None
            if chosen.label is not None:
                made = label(first.study, chosen.label, like=first.like, found=first.found)
            given = GivenVictim(chosen.victim, chosen.victim_state)
            options = VectorOptions(wanted, root, given, progress.brief)
            page = build_page(sources, options).encode()
        if chosen.out is None:
            storage, place = first.study.storage, f"{first.study.folder}/"
            name = place + (PAGE if alone else SEVERAL)
        else:
            storage, name = Storage(chosen.out.parent), chosen.out.name
            place = f"{chosen.out.stem}."
        storage.write(name, page)
        if made is not None:
            write_labels(made, storage, place)
    except (ConfigError, DataError, OSError) as error:
        errors.print(f"error: {visible_line(error)}", style="bold red", markup=False)
        return USAGE
    except KeyboardInterrupt:
        errors.print(f"{interrupts.reason}; nothing is written", markup=False)
        return interrupts.exit_code
    where = chosen.out or storage.where(name)
    console.print(f"written: {where} ({len(page) / 1e3:.0f} kB, needs no network)", markup=False)
    if made is not None:
        labelled = storage.where(f"{place}{JSON_NAME}")
        console.print(
            f"label of {visible_line(made['trial'])}: {labelled}, and the same as .md", markup=False
        )
    return DONE


if __name__ == "__main__":
    sys.exit(as_command(main))
