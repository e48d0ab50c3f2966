"""Run the paper's experiments and show its tables and figures beside ours: ``study/reproduce.py --help``."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import dataclasses
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from mipoison.config import ConfigError, choose
from mipoison.data.datasets import DataError, parse_name
from mipoison.storage.failures import StorageError
from study.paper.experiments import (
    DATASETS,
    DIFFUSION,
    DIFFUSION_AT_MOST,
    FACES,
    FIGURES,
    RUNS,
    STAND_IN,
    TABLES,
    PaperRow,
    folder_of,
    planned,
    runs_on,
)
from study.runtime.arguments import parse
from study.runtime.entry import DONE, FAILED, RESUME_HINT, USAGE
from study.runtime.plain import visible_line
from study.runtime.progress import loading
from study.runtime.scratch import temporary_run_folder
from study.runtime.signals import Interrupts, as_command, interruptible
from study.settings.display import Display
from study.settings.groups import Place, Sizes
from study.settings.resources import Resources
from study.settings.study_settings import StudySettings
from study.trial.failure import LostError

SCALE_HELP = "quick: a CPU, minutes a table; full: the paper's sizes, one GPU, hours (printed beforehand)"


@dataclass(frozen=True, kw_only=True)
class Arguments(Display, Resources, Place, Sizes):
    """Run the paper's experiments and put its numbers beside ours.

    Tables (Markdown and CSV) and figures go to <storage>/reproduction, made from the records there alone.
    FaceScrub's rows run on LFW unless --faces names another data set.
    """

    table: Annotated[
        tuple[str, ...], tyro.conf.arg(help=f"tables: {', '.join(TABLES)}", metavar="N [N ...]")
    ] = ()
    figure: Annotated[
        tuple[str, ...], tyro.conf.arg(help=f"figures: {', '.join(FIGURES)}", metavar="N [N ...]")
    ] = ()
    all: bool = False
    """every table and every figure"""
    claims: bool = False
    """run nothing: whether the records of --studies bear out what the paper, rivals and we claim"""
    studies: Path = Path("study/results")
    """with --claims: a folder of studies or compact copies"""
    render: bool = False
    """run nothing: tables and figures from the records that are there"""
    compact: Path | None = None
    """also write a small copy of the records there, with the tables and figures (of faces: no pictures)"""
    dataset: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help=f"only these data sets: {', '.join(DATASETS)} (default: all)", metavar="NAME [NAME ...]"
        ),
    ] = ()
    faces: str = STAND_IN
    """what FaceScrub's rows run on: lfw, olivetti, facescrub:PATH or faces:PATH"""
    scale: Annotated[Literal["quick", "full"], tyro.conf.arg(help=SCALE_HELP)] = "quick"
    resume: bool = False
    """add to (or finish) the records that are there; what is finished is not run again"""

    def tables_to_make(self) -> tuple[str, ...]:
        """The requested tables.

        Raises:
            ConfigError: no table or figure was requested, or one that the paper does not have.
        """
        if self.all:
            return TABLES
        if not self.table and not self.figure:
            raise ConfigError("nothing to do: give --table, --figure, --all or --claims")
        return tuple(dict.fromkeys(choose("table", t.upper(), TABLES) for t in self.table))

    def figures(self) -> tuple[str, ...]:
        """The requested figures."""
        given = FIGURES if self.all else self.figure
        return tuple(dict.fromkeys(choose("figure", f, FIGURES) for f in given))

    def runs(self, rows: list[PaperRow]) -> list[str]:
        """What to run: what the rows need, or the chosen data sets among that."""
        used = [run for run in RUNS if any(row.run == run for row in rows)] or list(DATASETS[:2])
        chosen = [choose("dataset", {self.faces: FACES}.get(d, d), DATASETS) for d in self.dataset]
        found = [d for d in used if not chosen or d in chosen or (d == DIFFUSION and "mnist" in chosen)]
        if not found:
            asked = ", ".join(self.dataset)
            raise ConfigError(f"dataset = {asked}: not in what was asked for; choose from: {', '.join(used)}")
        return found

    def settings(self, run: str) -> StudySettings:
        """The study settings of one of RUNS."""
        shared = [f.name for group in (Sizes, Place, Resources, Display) for f in dataclasses.fields(group)]
        given: dict[str, Any] = {name: getattr(self, name) for name in shared}
        given |= {"dataset": runs_on(run, self.faces), "auxiliary": "disjoint", "trials": 0}
        if run == DIFFUSION and self.scale == "quick":
            given |= {k: min(given[k] or most, most) for k, most in DIFFUSION_AT_MOST.items()}
        return StudySettings(**given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and render; returns an exit code with the meaning that ``pareto.py`` gives it."""
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        chosen = parse(Arguments, arguments, "reproduce")
        logging.basicConfig(level=logging.INFO if chosen.verbose else logging.ERROR)
        if chosen.claims:
            return _claims(chosen, console, errors)
        tables, figures = chosen.tables_to_make(), chosen.figures()
        parse_name(chosen.faces)
        rows = planned(tables, figures)
        runs = chosen.runs(rows)
        with loading(errors):
            import study.paper.run  # noqa: F401  what both parts need, which imports torch
            from study.records.reading import announce_left_out

        if not chosen.render:
            with interrupts.override_errors(), ExitStack() as held:
                held.enter_context(temporary_run_folder())
                _run(chosen, rows, runs, console, held)
        with announce_left_out(lambda text: errors.print(text, markup=False)):
            return _render(chosen, tables, figures, console)
    except (ConfigError, DataError) as error:
        errors.print(f"error: {visible_line(error)}", style="bold red", markup=False)
        return USAGE
    except (StorageError, LostError) as error:
        text = f"error: {visible_line(error)}; finished episodes are kept. Continue with --resume"
        errors.print(text, style="bold red", markup=False)
        return FAILED
    except KeyboardInterrupt:
        errors.print(f"{interrupts.reason}; {RESUME_HINT} and the same settings")
        return interrupts.exit_code


def _claims(chosen: Arguments, console: Console, errors: Console) -> int:
    if chosen.all or chosen.table or chosen.figure:
        raise ConfigError("--claims goes without --table, --figure and --all")
    with loading(errors):
        from study.paper.claims.decide import decide
        from study.paper.claims.evidence import collect
        from study.paper.claims.table import caption, claims_table, write_claims
        from study.records.reading import announce_left_out

    with announce_left_out(lambda text: errors.print(text, markup=False)):
        decisions = decide(
            collect(chosen.studies, lambda text: errors.print(visible_line(text), markup=False))
        )
    Console(highlight=False).print(claims_table(decisions))
    console.print(caption(decisions), markup=False)
    for path in write_claims(decisions, chosen.storage):
        console.print(f"written: {path}", markup=False)
    return DONE


def _run(chosen: Arguments, rows: list[PaperRow], runs: list[str], console: Console, held: ExitStack) -> None:
    from study.executors.starting import make_executor
    from study.paper.diagnostics import diagnose
    from study.paper.run import check_settings, missing, records_for, run_rows
    from study.session.estimate import duration, expected_seconds
    from study.session.lease import Lease

    settings = {run: chosen.settings(run) for run in runs}
    records = {run: records_for(chosen.storage, folder_of(run, chosen.faces)) for run in runs}
    for run in sorted(runs):  # always in the same order: otherwise two drivers could wait for each other
        held.enter_context(Lease(records[run].storage, records[run].study))
    for run in runs:
        check_settings(settings[run], records[run], chosen.resume)
    executor = make_executor(chosen, chosen, console)
    try:
        total, episodes, trials = 0.0, 0, 0
        for run in runs:
            todo = missing(records[run], rows, run)
            attacks = [name for trial in todo.values() for name in trial.attackers]
            episodes += len(attacks) * chosen.seeds
            trials += len(todo)
            if attacks:
                scene = settings[run].scenes()[0]
                total += expected_seconds(scene, attacks, chosen.seeds, executor.max_concurrent)
        where, at_once = ", ".join(r.study for r in records.values()), executor.max_concurrent
        console.print(
            f"{trials} trials on {where}, {episodes} episodes to "
            f"run: about {duration(total)} ({at_once} at once, timed here; within a factor 2)",
            markup=False,
        )
        for run in runs:
            run_rows(settings[run], run, records=records[run], rows=rows, executor=executor, console=console)
            if "3" in chosen.figures() and run in DATASETS:
                diagnose(settings[run], run, records[run])
    finally:
        executor.close()


def _render(chosen: Arguments, tables: tuple[str, ...], figures: tuple[str, ...], console: Console) -> int:
    from study.paper.compact import write_compact
    from study.paper.figures import write_figures
    from study.paper.measured import failed_share, load
    from study.paper.tables import write_tables

    found = load(chosen.storage, chosen.faces)
    for path in (
        *write_tables(found, tables, chosen.storage),
        *write_figures(found, figures, chosen.storage),
    ):
        console.print(f"written: {path}", markup=False)
    if chosen.compact is not None:
        write_compact(found, chosen.compact)
        copy = load(str(chosen.compact), chosen.faces)
        write_tables(copy, tables, str(chosen.compact))
        write_figures(copy, figures, str(chosen.compact))
    return FAILED if failed_share(found) > 0.5 else DONE


if __name__ == "__main__":
    sys.exit(as_command(main))
