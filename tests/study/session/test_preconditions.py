"""What has to hold before a study begins; more, end to end: ``test_plan.py``, ``test_own_victim.py``."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.data.images import DataError
from mipoison.data.splits import Split, describe
from mipoison.storage.files import Storage
from study.session.opening import open_study
from study.session.plan import plan_lines
from study.session.preconditions import (
    check_could_be_written,
    check_extras,
    read_split,
    split_if_here,
    split_lines,
)
from study.settings.study_settings import StudySettings

DIGITS = StudySettings(executor="local", seeds=1, limit=100)


def test_a_missing_extra_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "opacus" else there(name))
    private = dataclasses.replace(DIGITS, defenses=("rounding", "dp-sgd"), storage=str(tmp_path / "results"))
    said = 'defense dp-sgd needs an extra: pip install "mipoison\\[dp\\]"'
    with pytest.raises(ConfigError, match=said):
        open_study(private, Console())
    with pytest.raises(ConfigError, match=said):
        list(plan_lines(private))
    assert not list(tmp_path.iterdir())
    check_extras(DIGITS)


def test_what_is_installed_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    check_extras(dataclasses.replace(DIGITS, defenses=("dp-sgd",)))


def test_images_that_are_here_are_read_and_others_wait(tmp_path: Path) -> None:
    split = split_if_here(DIGITS)
    assert isinstance(split, Split)
    assert split_lines(DIGITS, split) == [describe(split)]
    assert split.fingerprint == read_split(DIGITS).fingerprint
    missing = split_if_here(dataclasses.replace(DIGITS, dataset="mnist", data_root=tmp_path))
    assert isinstance(missing, DataError)
    with pytest.raises(DataError, match="does not exist"):
        split_if_here(dataclasses.replace(DIGITS, dataset=f"folder:{tmp_path / 'nowhere'}"))


def test_a_bound_that_needs_more_classes_is_refused(tmp_path: Path) -> None:
    for k, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("L", (16, 16), 20 * k + i).save(tmp_path / name / f"{i}.png")
    few = StudySettings(dataset=f"folder:{tmp_path}", min_top5_agreement=0.9)
    with pytest.raises(ConfigError, match="needs 6 classes or more, and the victim has 3"):
        split_if_here(few)


def test_a_storage_that_could_be_written_is_not_made(tmp_path: Path) -> None:
    check_could_be_written(Storage(str(tmp_path / "new" / "results")))
    assert not os.listdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/results' cannot be made: storage .*file' cannot be written"):
        check_could_be_written(Storage(str(tmp_path / "file" / "results")))
