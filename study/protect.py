"""Make a protection unit of a setting of a study: the row that you chose, as a folder to be served.

``python study/protect.py --study results/digits-same --setting t0012 --out unit`` fits the setting's defense
on the study's scene once more and saves it; ``python study/serve.py --unit unit`` then answers with it.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.data.datasets import DataError
from mipoison.storage.files import StorageError
from study.runtime.arguments import parse
from study.runtime.entry import DONE, FAILED, USAGE, command
from study.runtime.plain import visible_line
from study.runtime.progress import Progress, loading
from study.runtime.scratch import scratch_folder, temporary_run_folder
from study.runtime.signals import Interrupts, as_command, interruptible

if TYPE_CHECKING:
    from study.records.finished import StoredStudy
    from study.trial.protecting import Chosen


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Fit a recorded setting of a study and save it as a unit, which serve puts behind HTTP.

    The scene is prepared as the study did: same data, classifier and seed. Where the study trained its own
    classifier, that is kept in the unit's folder, too; and the setting's privacy label, which serve answers,
    unless the unit distorts otherwise than the label says. Exit code 0: saved. 1: the rebuilt setting
    distorts otherwise than the records say; nothing is saved. 2: bad input.
    """

    study: str
    """the study: a folder with study.json (a compact copy will do), or s3://bucket/prefix/study"""
    setting: str
    """a recorded trial: t0012-lpa, its number t0012 alone, or label-only"""
    out: str
    """the unit's folder, or s3://bucket/prefix"""
    seed: int | None = None
    """the seed whose scene the unit is for, one of the study's; default: the first"""
    victim: str | None = None
    """the classifier, if the study is of a user's own: module:factory or file.pt2, as for pareto. Both run
    code; a classifier that only the records name is never loaded"""
    victim_state: str | None = None
    """weights for --victim module:factory"""
    plugin: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE [MODULE ...]")] = ()
    """plug-ins of the study's defenses and attackers: modules, or names of installed ones. They run code; one
    that only the records name is never loaded"""
    data_root: Path | None = None
    """data folder; default $MIPOISON_DATA or ~/.cache/mipoison/data"""
    storage: str | None = None
    """where trained parts are read and kept; default: the study's storage if they are there, else a temporary
    folder, so that they are trained anew"""
    overwrite: bool = False
    """replace a unit that is in --out"""
    anyway: bool = False
    """save the unit even if it distorts otherwise than the records say"""


EXAMPLES = (
    "--study results/digits-same --setting t0012 --out unit",
    "--study results/own --setting t0012 --out unit --victim net:make --victim-state weights.safetensors",
)
"""Shown by ``--help``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Protect; returns the exit code, see :class:`Arguments`, or 128 + the number of a signal."""
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    asked = parse(Arguments, arguments, "protect", examples=EXAMPLES)
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        with loading(errors):
            import study.trial.protecting  # noqa: F401  what make_unit() needs, which imports torch
            from mipoison.plugins import load_plugins
            from study.records.finished import load
            from study.records.reading import announce_left_out

        with contextlib.ExitStack() as stack:
            stack.enter_context(temporary_run_folder())
            stack.enter_context(announce_left_out(lambda text: errors.print(text, markup=False)))
            load_plugins(asked.plugin)
            found = load(asked.study)
            root = asked.storage or _trained_parts(found) or stack.enter_context(scratch_folder("protect"))
            return make_unit(asked, found, root, console, errors)
    except (ConfigError, DataError, StorageError, OSError) as error:
        errors.print(f"error: {visible_line(error)}", style="bold red", markup=False)
        return USAGE
    except KeyboardInterrupt:
        errors.print(f"{interrupts.reason}; nothing was saved", markup=False)
        return interrupts.exit_code


def _trained_parts(study: StoredStudy) -> str | None:
    """The storage of the study's trained parts, if it has any."""
    return study.storage.root if any(study.storage.names("artifacts")) else None


def make_unit(asked: Arguments, study: StoredStudy, root: str, console: Console, errors: Console) -> int:
    """Fit the unit, compare it with the records, save it, and print how to serve it."""
    from mipoison.serving.from_scene import save_victim
    from mipoison.serving.unit import refuse_existing
    from study.trial.protecting import chosen, differing, protect
    from study.trial.rerun import GivenVictim

    if not asked.overwrite:
        try:
            refuse_existing(asked.out)
        except ConfigError as error:
            raise ConfigError(str(error).replace("overwrite=True", "--overwrite")) from error
    setting = chosen(
        study, asked.setting, seed=asked.seed, given=GivenVictim(asked.victim, asked.victim_state)
    )
    knobs = " ".join(f"{name}={value}" for name, value in setting.config.changed().items())
    console.print(
        f"{setting.trial}: {setting.defense} {knobs}".rstrip() + f", seed {setting.scene.seed}", markup=False
    )
    data = None if asked.data_root is None else str(asked.data_root.expanduser().resolve())
    with Progress(errors) as progress:
        unit, scene, measured = protect(study, setting, root, data, progress.stage)
    same = _as_recorded(setting, measured, differing(measured, setting.recorded), console)
    if not (same or asked.anyway):
        errors.print(
            "error: not what the study measured, nothing was saved: use the versions of the study, or save "
            "it all the same with --anyway",
            style="bold red",
            markup=False,
        )
        return FAILED
    unit.save(asked.out, overwrite=asked.overwrite)
    if scene.config.victim is None:
        save_victim(scene.victim, asked.out)
    if same:
        _save_label(asked, study, setting.trial, errors)
    console.print(f"saved: {asked.out}", markup=False)
    console.print(f"serve it: {serve_command(asked, unit.keyed)}", markup=False)
    return DONE


def _save_label(asked: Arguments, study: StoredStudy, trial: str, errors: Console) -> None:
    """Write what the study measured of the setting into the unit's folder, which the server answers."""
    from mipoison.serving.unit import storage_of
    from study.reports.label import JSON_NAME, label, label_files

    try:
        made = label(study, trial, like=asked.study)
    except ConfigError as error:  # the unit is none the worse
        errors.print(f"no privacy label: {visible_line(error)}", markup=False)
        return
    storage_of(asked.out).write(JSON_NAME, label_files(made)[JSON_NAME])


def _as_recorded(
    setting: Chosen, measured: Mapping[str, float], other: Sequence[str], console: Console
) -> bool:
    """Print what was measured beside what is recorded; returns whether it is the same.

    Args:
        other: the columns that differ.
    """
    if not setting.recorded:
        distortion = measured["confidence_distortion"]
        console.print(f"distortion {distortion:.6f} (the study has no measurement of this seed)")
    for name, value in setting.recorded.items():
        word = "different" if name in other else "the same"
        label = "distortion" if name == "confidence_distortion" else name.replace("_", " ")
        console.print(f"{label} {measured[name]:.6f}, recorded {value:.6f}: {word}", markup=False)
    return not other


def serve_command(asked: Arguments, secret: bool) -> str:
    """The command line that serves the unit, with a place for the secret where it takes one."""
    words = [*command("serve").split(), "--unit", asked.out]
    for flag, value in (("--victim", asked.victim), ("--victim-state", asked.victim_state)):
        words += [] if value is None else [flag, value]
    words += ["--plugin", *asked.plugin] if asked.plugin else []
    return 'MIPOISON_SECRET="16 to 64 bytes of your own" ' * secret + shlex.join(words)


if __name__ == "__main__":
    sys.exit(as_command(main))
