"""The main program: search the defenses' knobs against adaptive attackers and build the Pareto frontier.

``python study/pareto.py --help`` explains every setting.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import functools
import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mipoison.config import ConfigError
from mipoison.data.datasets import DataError, parse_name
from study.runtime.arguments import parse
from study.runtime.entry import DONE, FAILED, RESUME_HINT, USAGE, command
from study.runtime.plain import visible, visible_line
from study.runtime.progress import Progress, loading
from study.runtime.scratch import temporary_run_folder
from study.runtime.signals import Interrupts, as_command, interruptible
from study.settings.adoption import adopted, named_study
from study.settings.study_settings import GROUPS, Arguments, StudySettings

if TYPE_CHECKING:
    import pandas as pd

    from study.session.callbacks import Callback
    from study.session.study import Study

TABLE_WIDTH = 100
"""Width that the tables need, in characters; in a narrower terminal their lines wrap."""

EXAMPLES = (
    "                                   # digits on this machine: a first look, minutes",
    "--trials 8 --seeds 2 --executor local --name first",
    "--dataset mnist --data-root DATA --attackers suite --max-accuracy-drop 0.01",
    "--dry-run --dataset lfw --scale full --gpus-per-worker 0.5",
    "--resume --name first --trials 24",
)
"""Shown by ``--help``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study.

    Returns:
        The exit code. 0: success. 1: more than half of the episodes failed, the anchors were lost, or the
        storage failed. 2: invalid input, or another driver runs the study; found before any work. 128 + the
        number of the signal that ended it, as shells report it: 130 Ctrl-C, 143 SIGTERM (batch systems,
        Kubernetes, spot machines), 129 SIGHUP (the terminal was closed).
    """
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    console = Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    name, kept = "", "nothing was begun"
    try:
        words = named_study(sys.argv[1:] if arguments is None else arguments)
        asked = parse(Arguments, words, "pareto", groups=GROUPS, examples=EXAMPLES)
        if asked.resume:
            asked = _with_stored(asked, words, console)
        settings = asked.checked()
        logging.basicConfig(level=logging.INFO if settings.verbose else logging.ERROR)
        if settings.dry_run:
            return _dry_run(settings, console)
        with loading(console):
            from study.session.opening import open_study

        with ExitStack() as held:
            held.enter_context(temporary_run_folder())
            kept = RESUME_HINT
            study = open_study(settings, console, held)
            name = f" --name {study.records.study}"
            try:
                with interrupts.override_errors():
                    return _run(study, console, words)
            except KeyboardInterrupt:
                study.check()  # if the lease was lost, this interrupt came from the lease: StorageError
                raise
    except (ConfigError, DataError) as error:
        errors.print(f"error: {visible_line(error)}", style="bold red", markup=False)
        return USAGE
    except KeyboardInterrupt:
        errors.print(f"{interrupts.reason}; {kept}{name}", markup=False)
        return interrupts.exit_code
    except Exception as error:
        from mipoison.storage.failures import storage_failure
        from study.trial.failure import LostError

        failure = storage_failure(error) or (str(error) if isinstance(error, LostError) else None)
        if failure is None:
            raise
        errors.print(
            f"error: {visible_line(failure)}; finished episodes are kept. When the cause is repaired, "
            f"continue with --resume{name}",
            style="bold red",
            markup=False,
        )
        return FAILED


def _with_stored(asked: Arguments, words: Sequence[str], console: Console) -> Arguments:
    """The arguments with the settings of the study that is resumed; ``open_study`` compares the others.

    Raises:
        ConfigError: the file of the study's settings is damaged.
    """
    with loading(console):
        from mipoison.storage.files import Storage
        from study.records.store import Records
        from study.session.opening import choose_name

    storage = Storage(asked.storage)
    stored = Records(storage, choose_name(asked, storage)).read_study_file()
    return asked if stored is None else adopted(asked, words, stored["settings"])


def _dry_run(settings: StudySettings, console: Console) -> int:
    """Print what would run; neither Ray nor a folder is made."""
    with loading(console):
        from study.session.plan import plan_lines

    for line in plan_lines(settings):
        console.print(visible(line), markup=False, soft_wrap=True)
    return DONE


def _run(study: Study, console: Console, words: Sequence[str]) -> int:
    """Run the study from the first anchor to the report; returns the exit code.

    Args:
        words: the command line, stored in ``study.json``.
    """
    from study.session.driver import failed_share, not_run

    began, progress = time.monotonic(), Progress(console)
    episodes = _search(study, console, progress, words)
    _report(study, console, progress)
    share = failed_share(episodes)
    console.print(not_run(episodes), end="")
    console.print(f"{len(episodes)} episodes, {share:.0%} failed, {time.monotonic() - began:.0f} s in all")
    return FAILED if share > 0.5 else DONE


def _search(study: Study, console: Console, progress: Progress, words: Sequence[str]) -> pd.DataFrame:
    """Run the trials, write the frontier, measure it on fresh seeds if asked for; returns the search's
    episodes."""
    from study.executors.starting import make_executor
    from study.session.callbacks import LiveLine, Metrics, Tracking
    from study.session.confirmation import confirm
    from study.session.curves import not_leaking, write_learning_curves
    from study.session.driver import run_study, write_frontier
    from study.session.monitoring import RayMonitor
    from study.session.reevaluation import reevaluate
    from study.tracking import make_trackers

    settings = study.settings
    with progress:
        executor = make_executor(settings, settings, console, progress)
    try:
        shared = settings.auxiliary == "same"
        line = LiveLine(progress, shared_classes=shared, what="screening: " if study.screens else "")
        confirming = LiveLine(progress, shared_classes=shared, what="the whole suite: ")
        callbacks: list[Callback] = []
        if settings.executor == "ray":
            monitor = RayMonitor(study.records.study, parse_name(settings.dataset)[0])
            callbacks.append(Metrics(monitor))
        trackers = make_trackers(
            settings, study.records, study.search, lambda text: console.print(text, markup=False)
        )
        try:
            episodes = run_study(study, executor, [*callbacks, line, Tracking(trackers)], words)
        finally:
            trackers.close()
        say = functools.partial(console.print, markup=False, soft_wrap=True)
        if study.screens:
            episodes = confirm(study, episodes, executor, [*callbacks, confirming], say)
        front = write_frontier(study, episodes)
        if settings.learning_curves:
            chosen = not_leaking(front, episodes, settings.margin)
            write_learning_curves(study, chosen, executor, progress, say)
        if settings.fresh_seeds:
            held = LiveLine(progress, shared_classes=shared, what="held-out seeds: ")
            again = [*front.to_dict("records"), *_recommended(study, episodes, set(front["trial"]))]
            reevaluate(study, again, executor, settings.fresh_seeds, [held])
    finally:
        executor.close()
    return episodes


def _recommended(study: Study, episodes: pd.DataFrame, there: set[str]) -> list[Mapping[str, Any]]:
    """What the answer will recommend, and its runner-up, as rows like the frontier's; none of ``there``."""
    from study.reports.findings import Findings
    from study.reports.summary import choose

    settings = study.settings
    found = Findings(episodes=episodes, about={}, constraints=settings.constraints, margin=settings.margin)
    choice = choose(found.judged)
    rows = [row for row in (choice.deploy, choice.runner_up) if row is not None]
    return [row for row in rows if str(row["trial"]) not in there]


def _report(study: Study, console: Console, progress: Progress) -> None:
    """Write the tables, the figures and the page, and print the answer."""
    settings, folder = study.settings, study.records.study
    remote = "://" in settings.storage
    place = study.records.storage.where(folder) if remote else f"{settings.storage.rstrip('/')}/{folder}"
    with progress:
        progress.brief("writing tables and figures", 0, 2)
        from study.records.finished import load
        from study.records.reading import announce_left_out
        from study.reports.findings import Findings
        from study.reports.html import PAGE, write_page
        from study.reports.report_files import write_report

        with announce_left_out(lambda text: console.print(text, markup=False, soft_wrap=True)):
            stored = load(place)
            found = Findings.of(stored)  # for both: each of its tables is computed once
            write_report(study.records, found, console, tables=settings.tables)
            progress.brief("writing the page", 1, 2)
            size = write_page(stored, place, with_vectors=False, found=found)
    file = study.records.storage.where(f"{folder}/{PAGE}")
    console.print(
        f"the same as a page, to open in a browser: {file} ({size / 1e3:.0f} kB)",
        soft_wrap=True,
        markup=False,
    )
    own = " --victim YOUR_CLASSIFIER" if settings.victim is not None else ""
    console.print(
        f"{command('report')} {shlex.quote(place)}{own} adds released vectors to it",
        soft_wrap=True,
        markup=False,
    )


if __name__ == "__main__":
    sys.exit(as_command(main))
