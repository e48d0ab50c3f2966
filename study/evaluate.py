"""Evaluate one setting: repeat a recorded trial, or run any setting on a study's scenes and attackers.

``python study/evaluate.py --like results/digits-same --trial t0007-lpa`` runs that trial again, trains
everything anew, and compares the numbers with the stored ones. ``--defense lpa --knob budget=0.01`` evaluates
another setting.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.data.datasets import DataError
from study.records.status import PRUNED
from study.runtime.arguments import parse
from study.runtime.entry import DONE, FAILED, USAGE
from study.runtime.plain import visible_line
from study.runtime.progress import Progress, loading
from study.runtime.scratch import scratch_folder, temporary_run_folder
from study.runtime.signals import Interrupts, as_command, interruptible

if TYPE_CHECKING:
    import pandas as pd

    from study.records.finished import StoredStudy

DIFFERENT = FAILED
"""Exit code: numbers differ from the stored ones."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Run one setting of a finished study again, or another setting under the same conditions.

    Exit code 0: done, and equal to what is stored (where it is a recorded trial). 1: numbers differ.
    2: bad input.
    """

    like: str
    """the study: a folder with study.json (a compact copy will do), or s3://bucket/prefix/study"""
    trial: str | None = None
    """a recorded trial, for instance t0007-lpa, or an anchor (none, label-only)"""
    defense: str | None = None
    """another defense"""
    knob: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE [NAME=VALUE ...]")] = ()
    """knobs that differ from the trial's (or from the defense's defaults)"""
    data_root: Path | None = None
    """data folder; default $MIPOISON_DATA or ~/.cache/mipoison/data"""
    dataset: str | None = None
    """where the study's folder of images is now (folder:PATH); default: where the study had it"""
    victim: str | None = None
    """the classifier, if the study is of a user's own: module:factory or file.pt2, as for pareto.py. Both run
    code; a classifier that only the records name is never loaded"""
    victim_state: str | None = None
    """weights for --victim module:factory"""
    plugin: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE [MODULE ...]")] = ()
    """plug-ins of the study's defenses and attackers: modules, or names of installed ones. They run code; one
    that only the records name is never loaded"""
    storage: str | None = None
    """keep records and trained parts here (finished episodes found there are not run again); default: a
    temporary folder, so that everything is trained anew"""


EXAMPLES = (
    "--like results/digits-same --trial t0007-lpa",
    "--like results/digits-same --defense lpa --knob budget=0.01 rounds=7",
)
"""Shown by ``--help``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate; returns the exit code, see :class:`Arguments`, or 128 + the number of a signal."""
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    chosen = parse(Arguments, arguments, "evaluate", examples=EXAMPLES)
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        with loading(errors):
            import study.trial.rerun  # noqa: F401  what evaluate() needs, which imports torch
            from study.records.reading import announce_left_out

        with contextlib.ExitStack() as stack:
            stack.enter_context(temporary_run_folder())
            stack.enter_context(announce_left_out(lambda text: errors.print(text, markup=False)))
            root = chosen.storage or stack.enter_context(scratch_folder("evaluate"))
            return evaluate(chosen, root, console)
    except (ConfigError, DataError, OSError) as error:
        errors.print(f"error: {visible_line(error)}", style="bold red", markup=False)
        return USAGE
    except KeyboardInterrupt:
        records = f"finished episodes are kept in {chosen.storage}" if chosen.storage else "nothing is kept"
        errors.print(f"{interrupts.reason}; {records}", markup=False)
        return interrupts.exit_code


def evaluate(chosen: Arguments, root: str, console: Console) -> int:
    """Run the setting, and print its numbers beside the stored ones."""
    from mipoison.plugins import load_plugins
    from study.records.finished import load
    from study.reports.tables import attackers_table
    from study.trial.rerun import GivenVictim, rerun, rerun_spec, trial_rows

    load_plugins(chosen.plugin)
    study = load(chosen.like)
    data = None if chosen.data_root is None else str(chosen.data_root.expanduser().resolve())
    spec = rerun_spec(
        study,
        trial=chosen.trial,
        defense=chosen.defense,
        knobs=list(chosen.knob),
        root=root,
        data_root=data,
        given=GivenVictim(chosen.victim, chosen.victim_state),
        plugins=chosen.plugin,
        dataset=chosen.dataset,
    )
    knobs = " ".join(f"{k}={v}" for k, v in spec.knobs.items())
    console.print(f"{spec.defense} {knobs}".strip(), markup=False)
    console.print(
        f"{len(spec.scenes)} seeds x {len(spec.attackers)} attackers, like {chosen.like}", markup=False
    )
    with Progress(Console(stderr=True)) as progress:
        measured = rerun(study, spec, lambda n, of: progress.brief("scenes and episodes", n, of))
    stored = None if chosen.trial != spec.trial else trial_rows(study, spec.trial)
    console.print(attackers_table(measured, stored))
    for error in sorted(set(measured.loc[measured["status"] != "ok", "error"].dropna())):
        console.print(visible_line(error), markup=False)
    if chosen.storage:
        console.print(
            f"records: {chosen.storage}/{spec.study}/episodes/{spec.trial}.a0.parquet", markup=False
        )
    return DONE if stored is None else verdict(study, stored, measured, console)


def verdict(study: StoredStudy, stored: pd.DataFrame, measured: pd.DataFrame, console: Console) -> int:
    """Print whether the measured numbers equal the stored ones; returns the exit code."""
    from mipoison.metrics.machine import device_name, versions
    from study.trial.rerun import differences, largest_difference

    n, found = differences(stored, measured)
    episodes = len(stored)
    pruned = int((stored["status"] == PRUNED).sum())
    shortened = f" ({pruned} of them not run, then as now)" if pruned else ""
    if not found:
        console.print(f"equal: {n} stored numbers of {episodes} episodes{shortened}, all of them exactly")
        return DONE
    most = largest_difference(found)
    console.print(
        f"different: {len(found)} of {n} stored numbers; the largest difference is {most.size:.2%} "
        f"({most.column}, attacker {most.attack}, seed {most.seed}: {most.stored} stored, "
        f"{most.measured} now)"
    )
    for name, here in (("device", device_name()), ("versions", versions())):
        then = sorted(set(stored[name].dropna())) if name in stored else []
        if then and then != [here]:
            console.print(f"{name} then: {visible_line(', '.join(then))}; now: {here}", markup=False)
    return DIFFERENT


if __name__ == "__main__":
    sys.exit(as_command(main))
