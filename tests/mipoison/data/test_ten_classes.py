"""Data sets of ten classes, from small files of their formats."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from mipoison.data import ten_classes
from mipoison.data.datasets import load_dataset
from tests.mipoison.data.test_datasets import message
from tests.mipoison.data.test_sources import small_cifar


def test_digits() -> None:
    raw = load_dataset("digits", download=False)
    assert raw.images_NHWC.shape == (1797, 16, 16, 1)
    assert raw.images_NHWC.dtype == np.uint8
    assert (raw.images_NHWC.min(), raw.images_NHWC.max()) == (0, 255)
    assert raw.labels_N.dtype == np.int64
    assert raw.official_test_N is None
    for dy, dx in ((0, 1), (1, 0), (1, 1)):  # each of the 8x8 values fills a block of 2x2
        assert (raw.images_NHWC[:, ::2, ::2] == raw.images_NHWC[:, dy::2, dx::2]).all()


def test_digits_are_scikit_learn_s() -> None:
    scans_NHW, labels_N = ten_classes._scans()
    bunch = load_digits()
    np.testing.assert_array_equal(scans_NHW, bunch.images)
    np.testing.assert_array_equal(labels_N, bunch.target)
    assert labels_N.dtype == bunch.target.dtype


def test_digits_without_a_file_of_that_name_come_from_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    scans_NHW, labels_N = ten_classes._scans()
    monkeypatch.setattr(ten_classes.Path, "is_file", lambda path: False)
    monkeypatch.setattr(np, "loadtxt", lambda *_, **__: pytest.fail("read directly"))
    called = []
    monkeypatch.setattr(
        sklearn.datasets, "load_digits", lambda: called.append(1) or Bunch(images=scans_NHW, target=labels_N)
    )
    assert ten_classes._scans() == (scans_NHW, labels_N)
    assert called


# ---------------------------------------------------------------------------- CIFAR-10 and named faces


def test_cifar10_npz(tmp_path: Path) -> None:
    small_cifar(tmp_path)
    raw = load_dataset("cifar10", data_root=tmp_path, download=False)
    assert raw.images_NHWC.shape == (30, 32, 32, 3)
    assert raw.official_test_N is not None
    assert raw.official_test_N.sum() == 10
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    assert (raw.images_NHWC == images).all()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train_images": np.zeros((20, 3, 32, 32), np.uint8)}, "shape [N, 32, 32, 3], got [20, 3, 32, 32]"),
        ({"train_images": np.zeros((20, 32, 32, 3), np.int64)}, "expected images of uint8, or float in"),
        ({"train_images": np.full((20, 32, 32, 3), np.nan)}, "must lie in [0, 1], got nan"),
        ({"train_labels": np.arange(19)}, "expected 20 integer labels, one an image, got int64 [19]"),
        ({"train_labels": np.arange(20) / 2}, "got float64"),
        ({"train_labels": np.arange(20)}, "expected labels 0 to 9, all present"),
        ({"train_labels": np.array([None] * 20, object)}, "not an .npz of plain arrays"),
    ],
)
def test_bad_cifar10_npz(tmp_path: Path, change: dict[str, np.ndarray], expected: str) -> None:
    small_cifar(tmp_path, **change)
    assert expected in message(lambda: load_dataset("cifar10", data_root=tmp_path, download=False))


def test_cifar10_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        batch = {"data": np.full((10, 3072), 7, np.uint8), "labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    # Not the published files: torchvision refuses them by their MD5, before it unpickles anything.
    assert "corrupted" in message(lambda: load_dataset("cifar10", data_root=tmp_path, download=False))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    raw = load_dataset("cifar10", data_root=tmp_path, download=False)
    assert raw.images_NHWC.shape == (60, 32, 32, 3)
    assert raw.official_test_N is not None
    assert raw.official_test_N.sum() == 10
