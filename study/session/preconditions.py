"""What has to hold before a study begins: checked when one is opened, and by ``--dry-run``."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from mipoison.attacks import ATTACKS
from mipoison.config import ConfigError, missing_extra
from mipoison.data.datasets import DATASETS, DataError, parse_name
from mipoison.data.splits import Split, describe
from mipoison.defenses import DEFENSES
from mipoison.scene import TEST_SEEN, own_victim, split_of, test_may_be_seen
from mipoison.storage.files import Storage
from study.settings.study_settings import StudySettings


def check_extras(settings: StudySettings) -> None:
    """Raise ConfigError if a defense or an attacker needs a package of an extra that is not installed."""
    for kind, names, known in (
        ("defense", settings.defenses, DEFENSES),
        ("attacker", settings.attackers, ATTACKS),
    ):
        for name in names:
            if (remedy := missing_extra(known[name])) is not None:
                raise ConfigError(f"{kind} {name} needs an extra: {remedy}, or leave it out")


def read_split(settings: StudySettings, *, download: bool = True) -> Split:
    """Read the images of the first seed and see whether the bounds and the user's own classifier fit them.

    Args:
        download: whether the network may be used.

    Raises:
        DataError: the images cannot be read or split.
        ConfigError: a bound needs more classes, or the classifier does not fit.
    """
    scene = settings.scenes()[0]
    split = split_of(scene, settings.data_root, download=download)
    settings.constraints.check_classes(split.n_classes)
    if scene.victim is not None:
        own_victim(scene, split, torch.device("cpu"))
    return split


def split_if_here(settings: StudySettings) -> Split | DataError:
    """:func:`read_split` without the network. Of a data set that may still be downloaded, what is missing."""
    spec = DATASETS[parse_name(settings.dataset)[0]]
    try:
        return read_split(settings, download=False)
    except DataError as error:
        if spec.takes_path:
            raise
        return error


def split_lines(settings: StudySettings, split: Split) -> list[str]:
    """The split in a line, and in another what its test images are, if the classifier may have seen them."""
    seen = test_may_be_seen(settings.scenes()[0], split)
    return [describe(split), *([f"test images: {TEST_SEEN}"] if seen else [])]


def check_could_be_written(storage: Storage) -> None:
    """Check that a storage can be written, without making its folder.

    Raises:
        ConfigError: it cannot; or the nearest folder above it that exists cannot.
    """
    root = Path(storage.root).absolute()
    if not storage.local or os.path.lexists(root):
        storage.check_writable()
        return
    there = next(path for path in root.parents if os.path.lexists(path))
    try:
        Storage(str(there)).check_writable()
    except ConfigError as error:
        raise ConfigError(f"storage {storage.root!r} cannot be made: {error}") from error
