"""Loaders of the data sets with ten classes: scikit-learn's digits, MNIST and Fashion-MNIST, CIFAR-10.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from mipoison.config import one_line
from mipoison.data.images import READ_ERRORS, DataError
from mipoison.data.loading import check_arrays, download_folder, fetch, read_npz
from mipoison.data.sources import Loaded, Source

_IDX_FILES = tuple(f"{a}-{b}-ubyte" for a in ("train", "t10k") for b in ("images-idx3", "labels-idx1"))
_IDX_SHAPES = {b"\x00\x00\x08\x01": (), b"\x00\x00\x08\x03": (28, 28)}  # magic number -> shape of one item


def load_digits(source: Source) -> Loaded:
    """The digits that scikit-learn ships, 8x8, each pixel repeated to 16x16."""
    scans_NHW, labels_N = _scans()
    images = np.rint(scans_NHW * (255 / 16)).astype(np.uint8)  # the scans have 17 grey levels
    return Loaded(images.repeat(2, axis=1).repeat(2, axis=2)[..., None], labels_N)


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """What ``sklearn.datasets.load_digits`` returns: scans (N, 8, 8) with values 0 to 16, and labels (N,).

    Its file is read directly where it is found, because importing that package takes more than a second, and
    every process that reads images would import it.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    import sklearn.datasets

    bunch: Any = sklearn.datasets.load_digits()
    return bunch.images, bunch.target


def read_idx(path: Path) -> np.ndarray:
    """Read a file in MNIST's own format, IDX: 28x28 images or their labels, plain or compressed with gzip.

    Returns:
        uint8 array, [N, 28, 28] or [N].

    Raises:
        DataError: another kind of file, truncated, or longer than its header says.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            magic = stream.read(4)
            if magic not in _IDX_SHAPES:
                raise DataError(f"{path}: magic number {magic.hex()!r}, expected one of 00000801, 00000803")
            n, *item = struct.unpack(f">{magic[3]}I", stream.read(4 * magic[3]))
            if tuple(item) != _IDX_SHAPES[magic] or n > 1_000_000:
                raise DataError(f"{path}: shape {[n, *item]}, expected [N, 28, 28] or [N], N at most 1000000")
            size = n * (28 * 28 if item else 1)
            data = stream.read(size + 1)
    except DataError:
        raise
    except READ_ERRORS as error:
        raise DataError(f"{path}: truncated or damaged ({one_line(error)}); fetch it again") from error
    if len(data) != size:
        fault = "truncated" if len(data) < size else "longer than its header says"
        raise DataError(f"{path}: {fault}, expected {size} bytes of data, got {min(len(data), size)}"
                        f"{'' if len(data) < size else ' and more'}; fetch it again")  # fmt: skip
    return np.frombuffer(data, np.uint8).reshape(n, *item)


def load_mnist(source: Source) -> Loaded:
    """MNIST or Fashion-MNIST from its IDX files, framed with two black pixels a side to 32x32.

    The files are those that torchvision downloads, in `<root>/MNIST/raw` or `<root>/FashionMNIST/raw`.
    """
    class_name = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[source.name]
    folder = source.root / class_name / "raw"
    missing = [f for f in _IDX_FILES if not (folder / f).is_file() and not (folder / f"{f}.gz").is_file()]

    def download() -> None:
        import torchvision.datasets  # imported here because it is slow and only a download needs it

        with download_folder(source) as temporary:
            getattr(torchvision.datasets, class_name)(temporary, download=True)
            folder.mkdir(parents=True, exist_ok=True)
            for file in _IDX_FILES:
                os.replace(Path(temporary, class_name, "raw", file), folder / file)

    if missing:
        fetch(source, download, f"put {', '.join(missing)} (plain or .gz) into {folder}")
    paths = [folder / file if (folder / file).is_file() else folder / f"{file}.gz" for file in _IDX_FILES]
    train_images, train_labels, test_images, test_labels = (read_idx(path) for path in paths)
    pairs = ((train_images, train_labels, paths[1]), (test_images, test_labels, paths[3]))
    for images, labels, path in pairs:
        if labels.shape != images.shape[:1] or images.ndim != 3:
            raise DataError(f"{path}: expected {len(images)} labels, got {list(labels.shape)}")
    images = np.pad(np.concatenate([train_images, test_images]), ((0, 0), (2, 2), (2, 2)))[..., None]
    is_test = np.arange(len(images)) >= len(train_images)
    return Loaded(images, np.concatenate([train_labels, test_labels]), is_test)


def load_cifar10(source: Source) -> Loaded:
    """CIFAR-10 from `<root>/cifar10.npz`, else from the folder `<root>/cifar-10-batches-py`."""
    path, folder = source.root / "cifar10.npz", source.root / "cifar-10-batches-py"
    keys = ("train_images", "train_labels", "test_images", "test_labels")

    def download() -> list[np.ndarray]:
        from torchvision.datasets import CIFAR10  # imported here because it is slow and an .npz does without

        if not folder.is_dir():
            with download_folder(source) as temporary:
                CIFAR10(temporary, download=True)
                os.rename(Path(temporary, folder.name), folder)
        # These files are pickles, which can run code. torchvision opens only files with the expected MD5.
        parts = [CIFAR10(str(source.root), train=train) for train in (True, False)]
        return [array for part in parts for array in (part.data, np.asarray(part.targets))]

    remedy = f"put cifar-10-batches-py or a cifar10.npz ({', '.join(keys)}) into {source.root}"
    arrays = read_npz(path, keys) if path.is_file() else fetch(source, download, remedy)
    train_images, train_labels = check_arrays(path, arrays[0], arrays[1], item=(32, 32, 3))
    test_images, test_labels = check_arrays(path, arrays[2], arrays[3], item=(32, 32, 3))
    images = np.concatenate([train_images, test_images])
    is_test = np.arange(len(images)) >= len(train_images)
    return Loaded(images, np.concatenate([train_labels, test_labels]), is_test)
