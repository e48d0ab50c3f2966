"""Where data come from: the default folder, and downloads that fail."""

import urllib.error
from pathlib import Path

import numpy as np
import pytest

from mipoison.data.datasets import default_data_root, load_dataset
from tests.mipoison.data.test_datasets import message, npz


def small_cifar(root: Path, **changes: np.ndarray) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    arrays = {"train_images": images[:20], "train_labels": np.arange(20) % 10,
              "test_images": images[20:], "test_labels": np.arange(10)}  # fmt: skip
    return npz(root / "cifar10.npz", **(arrays | changes))


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MIPOISON_DATA", raising=False)
    assert default_data_root() == Path.home() / ".cache/mipoison/data"
    monkeypatch.setenv("MIPOISON_DATA", str(tmp_path))
    small_cifar(tmp_path)
    assert len(load_dataset("cifar10").labels_N) == 30
    assert str(tmp_path / "other") in message(
        lambda: load_dataset("cifar10", data_root=tmp_path / "other", download=False)
    )


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), RuntimeError("all\nmirrors failed")])
@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist", "cifar10", "olivetti", "lfw"])
def test_download_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    for owner in ("MNIST", "FashionMNIST", "CIFAR10"):
        monkeypatch.setattr(f"torchvision.datasets.{owner}.download", fail)
    monkeypatch.setattr("sklearn.datasets.fetch_olivetti_faces", fail)
    monkeypatch.setattr("sklearn.datasets.fetch_lfw_people", fail)
    text = message(lambda: load_dataset(dataset, data_root=tmp_path))
    assert str(tmp_path) in text
    assert "no route" in text or "all mirrors failed" in text
    expected = {"mnist": "t10k-labels-idx1-ubyte", "fashion-mnist": "FashionMNIST/raw"}
    assert expected.get(dataset, f"{dataset}.npz") in text
    assert not list(tmp_path.iterdir())  # nothing half-made is left behind


@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "olivetti", "lfw"])
def test_download_off(tmp_path: Path, dataset: str) -> None:
    assert "not downloaded" in message(lambda: load_dataset(dataset, data_root=tmp_path, download=False))
