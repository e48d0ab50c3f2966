"""A study is identified by its images, not by their path."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.scene import own_victim, split_of
from mipoison.victims.own import load_victim
from study import pareto
from study.analysis.frontier import configuration_table
from study.records.constraints import Constraints
from study.session.driver import Study
from study.session.opening import open_study
from study.settings.study_settings import StudySettings

TINY: dict[str, Any] = {
    "executor": "local", "seeds": 1, "attackers": ("class-mean", "ridge", "label-only"),
    "defenses": ("rounding",),
    "victim_steps": 3, "decoder_steps": 3, "image_size": 16, "name": "s", "trials": 1,
    "screen": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``img``, an explicit split of three classes, and a study of it, ``out/s``."""
    root = tmp_path_factory.mktemp("begun")
    rng = np.random.default_rng(0)
    for side in ("train", "attack"):
        for name in ("a", "b", "c"):
            (root / "img" / side / name).mkdir(parents=True)
            for i in range(10):
                pixels = rng.integers(0, 255, (16, 16), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "img" / side / name / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert run("folder:img") == 0
    return root


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, as the current folder and the user's home."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def run(dataset: str, *more: str, storage: str = "out", name: str = "s") -> int:
    given = [
        f"--{key.replace('_', '-')}={value}"
        for key, value in TINY.items()
        if not isinstance(value, tuple | bool)
    ]
    lists = ["--attackers", *TINY["attackers"], "--defenses", *TINY["defenses"]]
    return pareto.main(
        [
            *given,
            *lists,
            "--no-learning-curves",
            "--no-screen",
            f"--name={name}",
            "--dataset",
            dataset,
            "--storage",
            storage,
            *more,
        ]
    )


def opened(dataset: str, **changes: Any) -> Study:
    settings = TINY | {"dataset": dataset, "storage": "out", "resume": True} | changes
    return open_study(StudySettings(**settings), Console(file=io.StringIO()))


def episodes(name: str = "s", storage: str = "out") -> pd.DataFrame:
    return pd.read_parquet(Path(storage) / name / "episodes")


def change_one_image(root: Path) -> None:
    Image.new("L", (16, 16), 7).save(root / "train" / "a" / "0.png")


def about(**changes: Any) -> None:
    """Change ``study.json``; None removes an entry."""
    path = Path("out/s/study.json")
    stored = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in stored.items() if value is not None}))


def test_the_same_images_under_other_names_and_elsewhere(here: Path) -> None:
    os.symlink(here / "img", here / "link")
    for path in (str(here / "img"), "img/", "./img", "link", "~/img", "img/../img"):
        assert opened(f"folder:{path}").finished.keys() >= {"none", "label-only"}
    shutil.move("img", "moved")
    assert run("folder:moved", "--resume", "--trials=2") == 0
    found = episodes()
    assert found["trial"].nunique() == 4
    assert found["split"].nunique() == 1
    assert set(found["dataset"]) == {"folder:img", "folder:moved"}
    assert (found["status"] == "ok").all()
    assert Path("out/s/report.md").is_file()


def test_other_images_under_the_same_name_are_refused(here: Path) -> None:
    change_one_image(here / "img")
    with pytest.raises(ConfigError, match=r"the images of folder:img are not those that study 's' was begun"):
        opened("folder:img")
    before = episodes()
    assert run("folder:img", "--resume", "--trials=2") == 2
    pd.testing.assert_frame_equal(episodes(), before)
    with pytest.raises(ConfigError, match="dataset: 'folder' -> 'digits'"):
        opened("digits", image_size=None)


def test_a_study_begun_earlier_is_known_by_its_records(here: Path) -> None:
    about(content=None)  # as versions before 0.1.0 wrote it
    shutil.copytree("img", "copy")
    assert opened("folder:copy").finished
    change_one_image(here / "copy")
    with pytest.raises(ConfigError, match="not those that study 's' was begun"):
        opened("folder:copy")
    shutil.rmtree("out/s/episodes")
    assert not opened("folder:copy").finished  # there are no records that could be mixed


def test_an_archive_of_faces_may_be_moved(here: Path) -> None:
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 255, (40, 64, 64), dtype=np.uint8), np.repeat(np.arange(4), 10)
    np.savez("one.npz", images=images, labels=labels)
    np.savez("two.npz", images=images[::-1], labels=labels)
    changes = {"image_size": None}
    content = opened("faces:one.npz", resume=False, name="t", **changes).content
    shutil.rmtree("out/s/episodes")
    settings = StudySettings(**TINY | changes | {"dataset": "faces:one.npz"})
    Path("out/s/study.json").write_text(json.dumps({"settings": settings.identity(), "content": content}))
    Path("one.npz").rename("moved.npz")
    assert opened("faces:moved.npz", **changes).content == content
    with pytest.raises(ConfigError, match="not those that study 's' was begun"):
        opened("faces:two.npz", **changes)


@pytest.mark.usefixtures("no_report")
def test_another_study_of_the_same_images_takes_over_episodes_under_its_own_path(here: Path) -> None:
    shutil.copytree("img", "copy")
    assert run("folder:copy", name="t") == 0
    first, second = episodes("s"), episodes("t")
    assert set(second["dataset"]) == set(second["scene.dataset"]) == {"folder:copy"}
    assert not set(first["episode_id"]) & set(second["episode_id"])
    both = [
        frame[frame["trial"] == "none"].set_index("attack")["reconstruction_error"]
        for frame in (first, second)
    ]
    pd.testing.assert_series_equal(*both)


NET = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(256, affine=False), nn.Linear(256, 3))
"""


def test_records_of_one_table_show_the_same_images(here: Path) -> None:
    found = episodes()
    elsewhere = found["trial"] == "none"
    found.loc[elsewhere, ["dataset", "scene.dataset"]] = "folder:/moved"
    assert len(configuration_table(found, constraints=Constraints(max_accuracy_drop=1.0))) == 3
    found.loc[elsewhere, "split"] = "0" * 16
    with pytest.raises(ValueError, match="mix the images of a seed"):
        configuration_table(found, constraints=Constraints(max_accuracy_drop=1.0))


def test_the_classifier_of_an_earlier_version_is_known_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "earlier_net.py").write_text(NET)
    now = StudySettings(**TINY, dataset="folder:img", victim="earlier_net:make")
    earlier = load_victim("earlier_net:make").earlier
    assert earlier != now.victim_digest
    same = now.continuing(now.identity() | {"victim_digest": earlier})
    assert same.victim_digest == same.identity()["victim_digest"] == earlier
    assert same.scenes()[0].victim_name == f"earlier_net:make@{earlier}"
    assert now.continuing(now.identity() | {"victim_digest": "0" * 16}) is now
    assert now.continuing(now.identity()) is now
    monkeypatch.setattr(
        "mipoison.scene.check_victim", lambda *_: None
    )  # the victim is not trained, so the check would fail
    scene = same.scenes()[0]
    own_victim(scene, split_of(scene), torch.device("cpu"))
    with pytest.raises(ConfigError, match="is not the study's"):
        own_victim(dataclasses.replace(scene, victim_digest="0" * 16), split_of(scene), torch.device("cpu"))
