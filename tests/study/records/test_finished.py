"""A finished study is read from its folder or its compact copy, alike; and what is none is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mipoison.config import ConfigError
from study.records.constraints import Constraints
from study.records.curves import CURVES, read_curves
from study.records.finished import load, write_compact


def test_a_compact_copy_is_the_study(small_study: Path, tmp_path: Path) -> None:
    study = load(small_study)
    write_compact(study, tmp_path / "copy")
    copy = load(tmp_path / "copy")
    kept_files = ["episodes.parquet", CURVES, "study.json"]
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == kept_files
    assert read_curves(copy.storage, copy.folder) == read_curves(study.storage, study.folder) != []
    full = study.episodes.dropna(axis=1, how="all")  # empty columns take no room in a copy
    pd.testing.assert_frame_equal(copy.episodes[full.columns], full)
    assert set(copy.episodes) == set(full)
    assert (copy.name, copy.fresh) == (study.name, None)
    assert copy.constraints == study.constraints == Constraints()
    assert copy.about["settings"] == study.about["settings"]
    kept = json.loads((tmp_path / "copy/study.json").read_text())
    assert "command" not in kept  # its paths are nobody else's
    assert str(small_study.parent) not in (tmp_path / "copy/study.json").read_text()


def test_only_wanted_columns_are_read(small_study: Path) -> None:
    some = load(small_study, wanted=lambda name: name in ("trial", "seed", "attack", "attack_accuracy"))
    assert {"trial", "attack_accuracy"} <= set(some.episodes)
    assert "reconstruction_error" not in some.episodes
    assert some.episodes["attack_accuracy"].equals(load(small_study).episodes["attack_accuracy"])


def test_what_is_no_finished_study(small_study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no study here"):
        load(tmp_path)
    begun = Path(shutil.copytree(small_study, tmp_path / "begun"))
    shutil.rmtree(begun / "episodes")
    with pytest.raises(ConfigError, match="no finished episode"):
        load(begun)
    (begun / "study.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"study\.json is damaged"):
        load(begun)


def test_without_a_stated_constraint_the_default_holds(small_study: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(small_study, tmp_path / "copy"))
    (copy / "study.json").write_text('{"study": "s"}')
    assert load(copy).constraints == Constraints()
    assert load(copy).title_info == {"study": "s", "scale": None}
