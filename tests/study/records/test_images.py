"""Reconstructions are kept as plain numbers, and come back in [0, 1]."""

import io
from pathlib import Path

import numpy as np

from mipoison.storage.files import Storage
from study.records.images import kept_pictures, read_pictures, write_pictures
from study.records.reading import announce_left_out


def test_pictures_come_back(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    pictures = {
        "truth": np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2),
        "passive": np.full((2, 1, 2, 2), 255),
    }
    pictures["passive"] = pictures["passive"].astype(np.uint8)
    write_pictures(storage, "s", "t0001-noise", pictures)
    found = read_pictures(storage, "s", "t0001-noise")
    assert set(found) == set(pictures)
    for name, images in pictures.items():
        np.testing.assert_allclose(found[name] * 255, images)
    with np.load(
        io.BytesIO((tmp_path / "s/pictures/t0001-noise.npz").read_bytes()), allow_pickle=False
    ) as kept:
        assert kept["truth"].tolist() == pictures["truth"].tolist()


def test_none_and_what_is_no_picture(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    assert read_pictures(storage, "s", "t") == {}
    assert kept_pictures(storage, "s/pictures.parquet", "t") is None
    for name in ("s/pictures/t.npz", "s/pictures.parquet"):
        storage.write(name, b"no archive")
    said: list[str] = []
    with announce_left_out(said.append):
        assert read_pictures(storage, "s", "t") == {}
        assert kept_pictures(storage, "s/pictures.parquet", "t") == {}
    assert ["t.npz" in said[0], "pictures.parquet" in said[1], len(said)] == [True, True, 2]
