"""The command lines that run settings of a study again, the same on the page, the board and in labels."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence

from study.records.finished import StoredStudy
from study.runtime.entry import command
from study.runtime.plain import visible_line
from study.trial.rerun import has_own_victim

DATA_ROOT = ("--data-root", "--data_root")
DATA = "DATA"
"""Stands for the folder of the data sets in commands, as on the pages."""
_PLACES = {"--data-root": DATA, "--dataset": "FOLDER", "--storage": "STORAGE"}
"""Option -> what stands for the path in its value."""
_PATH = re.compile(r"(?:^|(?<=[:=]))(?:~|/|[A-Za-z]:[\\/]).*", re.DOTALL)
"""A path of one machine: a whole word, or what follows the first colon or equals sign."""


def rerun_command(study: StoredStudy, like: str, trial: str) -> str:
    """The command line that runs a setting again, on any machine.

    Where the study was given a folder of data, the command has :data:`DATA` in its place: the folder's path
    is of one machine, and says who ran it.

    Args:
        like: the study's path or address.
    """
    data = "" if data_root(study) is None else f" --data-root {DATA}"
    start = f"{command('evaluate')} --like {_quoted(like)} --trial {_quoted(trial)}"
    return start + data + own_folder(study) + own_victim(study)


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


def own_folder(study: StoredStudy) -> str:
    """An option for studies of a user's own folder of images: the reader says where it is."""
    names = study.episodes["dataset"].dropna() if "dataset" in study.episodes else []
    kinds = sorted({str(name).partition(":")[0] for name in names if ":" in str(name)})
    return f" --dataset {kinds[0]}:FOLDER" if len(kinds) == 1 else ""


def own_victim(study: StoredStudy) -> str:
    """Options for studies of a user's own classifier: the reader names it, and the file of its weights where
    the study had one, never the records."""
    if not has_own_victim(study.episodes):
        return ""
    weights = study.about.get("settings", {}).get("victim_state")
    if "scene.victim_state" in study.episodes and study.episodes["scene.victim_state"].notna().any():
        weights = True
    return f" --victim YOUR_CLASSIFIER{' --victim-state YOUR_WEIGHTS' if weights else ''}"


def _quoted(text: str) -> str:
    return shlex.quote(visible_line(text))


def without_paths(words: Sequence[str]) -> list[str]:
    """A command line as it may be shown around: paths of the machine are replaced by what they are of.

    A path says who ran it and where. That of another option keeps its last name, as a classifier's does.
    Addresses (``s3://...``) and relative paths stay.
    """
    shown, option = [], ""
    for word in map(str, words):
        if word.startswith("--"):
            option = word.partition("=")[0].replace("_", "-")
        place = _PLACES.get(option)
        shown.append(word if "://" in word else _PATH.sub(lambda found: place or _last(found[0]), word))  # noqa: B023
    return shown


def _last(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
