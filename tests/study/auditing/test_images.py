"""Folders of the auditor: what is train and test must be said; copies count once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from audited_servers import folder_of, pictures
from PIL import Image

from mipoison.data.images import DataError
from study.auditing.images import read_images, without_copies


def test_pools_by_folder_and_by_flag(tmp_path: Path) -> None:
    public, train, test = pictures(30, 0), pictures(24, 1), pictures(21, 2)
    folder_of(tmp_path / "public", public)
    folder_of(tmp_path / "private" / "train", train)
    folder_of(tmp_path / "private" / "test", test)
    found = read_images(tmp_path / "public", tmp_path / "private")
    assert found.public_NHWC.shape == (30, 8, 8, 1)
    assert {name: len(x) for name, x in found.private.items()} == {"train": 24, "test": 21}
    assert {x.tobytes() for x in found.private["train"]} == {x.tobytes() for x in train}
    one = read_images(tmp_path / "public", tmp_path / "private" / "test", private_are="test")
    assert list(one.private) == ["test"]
    alone = read_images(tmp_path / "public", None, size=4)
    assert alone.private == {}
    assert alone.public_NHWC.shape == (30, 4, 4, 1)
    with pytest.raises(DataError, match="neither train/ nor test/"):
        read_images(tmp_path / "public", tmp_path / "private" / "test")
    with pytest.raises(DataError, match="leave out"):
        read_images(tmp_path / "public", tmp_path / "private", private_are="train")
    with pytest.raises(DataError, match="choose train or test"):
        read_images(tmp_path / "public", tmp_path / "private", private_are="both")


def test_images_without_class_folders_and_in_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    assert read_images(tmp_path, None).public_NHWC.shape == (20, 8, 8, 3)


def test_copies_are_left_out_and_counted() -> None:
    x = pictures(60, 0)
    found = without_copies(
        {"public": np.concatenate([x[:25], x[40:50]]), "train": np.concatenate([x[30:], x[30:35]])}
    )
    assert len(found.public_NHWC) == 25
    assert len(found.private["train"]) == 30
    assert any("5 of 35 train" in n for n in found.notes)
    assert any("10 of 35 public" in n for n in found.notes)
    with pytest.raises(DataError, match="5 different public images"):
        without_copies({"public": x[25:], "train": x[30:]})


@pytest.mark.parametrize("size", [2, 5000])
def test_faults_of_folders(tmp_path: Path, size: int) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_images(tmp_path / "gone", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="none in"):
        read_images(tmp_path / "empty", None)
    folder_of(tmp_path / "public", pictures(20, 0))
    with pytest.raises(DataError, match="size"):
        read_images(tmp_path / "public", None, size=size)
    Image.new("L", (9, 8)).save(tmp_path / "public" / "odd.png")
    with pytest.raises(DataError, match="--size"):
        read_images(tmp_path / "public", None)
