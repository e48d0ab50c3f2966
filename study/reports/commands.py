"""The command lines that run settings of a study again, the same on the page, the board and in labels."""

from __future__ import annotations

import itertools
import shlex

from study.records.finished import StoredStudy
from study.runtime.entry import command
from study.runtime.plain import visible_line
from study.trial.rerun import has_own_victim

DATA_ROOT = ("--data-root", "--data_root")
DATA = "DATA"
"""Stands for the folder of the data sets in commands, as on the pages."""


def rerun_command(study: StoredStudy, like: str, trial: str) -> str:
    """The command line that runs a setting again, on any machine.

    Where the study was given a folder of data, the command has :data:`DATA` in its place: the folder's path
    is of one machine, and says who ran it.

    Args:
        like: the study's path or address.
    """
    data = "" if data_root(study) is None else f" --data-root {DATA}"
    start = f"{command('evaluate')} --like {_quoted(like)} --trial {_quoted(trial)}"
    return start + data + own_victim(study)


def rerun_commands(study: StoredStudy, like: str) -> dict[str, str]:
    """Trial -> :func:`rerun_command`."""
    return {str(t): rerun_command(study, like, str(t)) for t in sorted(set(study.episodes["trial"]))}


def data_root(study: StoredStudy) -> str | None:
    """The data folder that the study was given (``--data-root X``, ``--data-root=X``); the last counts."""
    words = [str(word) for word in study.about.get("command", [])]
    found = None
    for word, following in itertools.pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name in DATA_ROOT:
            found = (value if equals else following) or found
    return found


def own_victim(study: StoredStudy) -> str:
    """An option for studies of a user's own classifier: the reader names it, never the records."""
    return " --victim YOUR_CLASSIFIER" if has_own_victim(study.episodes) else ""


def _quoted(text: str) -> str:
    return shlex.quote(visible_line(text))
