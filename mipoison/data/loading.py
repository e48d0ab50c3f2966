"""What several loaders of data sets need: reading `.npz` files, checking arrays, downloading.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import http.client
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from mipoison.config import one_line
from mipoison.data.images import READ_ERRORS, DataError, some
from mipoison.data.sources import Source

T = TypeVar("T")

_DOWNLOAD_ERRORS = (OSError, RuntimeError, http.client.HTTPException)  # urllib's URLError is an OSError


def read_npz(path: Path, keys: tuple[str, ...]) -> list[np.ndarray]:
    """Read named arrays from an `.npz` file without unpickling anything.

    Returns:
        One array for each key, in their order.

    Raises:
        DataError: the file is no `.npz` or damaged, or a key is missing.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: not an .npz; expected one with {', '.join(keys)}")
        with np.load(path, allow_pickle=False) as archive:
            if missing := [key for key in keys if key not in archive]:
                found = some(list(archive))
                raise DataError(f"{path}: no {', '.join(missing)}; expected {', '.join(keys)}, got {found}")
            return [archive[key] for key in keys]
    except DataError:
        raise
    except READ_ERRORS as error:
        raise DataError(f"{path}: not an .npz of plain arrays, or damaged ({one_line(error)})") from error


def check_arrays(
    path: Path, images: np.ndarray, labels: np.ndarray, item: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Check images and labels that came from a file, and bring the images to uint8.

    Args:
        path: the file, for messages.
        images: [N, H, W] or [N, H, W, 1 or 3]; uint8, or float in [0, 1].
        labels: [N]; integers, or text unless `item` is given.
        item: the only (H, W, C) accepted; () accepts any.

    Returns:
        Images, uint8 [N, H, W, C], and the labels unchanged.

    Raises:
        DataError: another shape, type or range; the message names what was expected and found.
    """
    shape = (*images.shape, 1) if images.ndim == 3 and not item else images.shape
    if len(shape) != 4 or shape[-1] not in (1, 3) or 0 in shape or item not in ((), shape[1:]):
        expected = f"[N, {', '.join(map(str, item))}]" if item else "[N, H, W] or [N, H, W, 1 or 3]"
        raise DataError(f"{path}: expected images of shape {expected}, got {list(images.shape)}")
    images = images.reshape(shape)
    if images.dtype.kind == "f":
        if not (images.min() >= 0 and images.max() <= 1):  # false for NaN as well
            raise DataError(f"{path}: float images must lie in [0, 1], got {images.min()} to {images.max()}")
        images = np.rint(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise DataError(f"{path}: expected images of uint8, or float in [0, 1], got {images.dtype}")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in ("iu" if item else "iuU"):
        got = f"{labels.dtype} {list(labels.shape)}"
        raise DataError(f"{path}: expected {len(images)} integer labels, one an image, got {got}")
    return images, labels


def fetch(source: Source, download: Callable[[], T], remedy: str) -> T:
    """Run a download and turn its failures into one line.

    Args:
        source: its `root` is where the files were looked for.
        download: downloads the data set and returns what it read.
        remedy: what the user can do instead, e.g. which files to put where.

    Raises:
        DataError: the download failed; the message ends with the remedy.
    """
    try:
        return download()
    except _DOWNLOAD_ERRORS as error:
        fault = f"not in {source.root} and not downloaded ({one_line(error)})"
        raise DataError(f"{source.name}: {fault}; {remedy}") from error


def download_folder(source: Source) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder below the data folder, removed when its `with` block ends.

    Each process downloads into one of its own and then renames the files into place, so that no process reads
    a file that another has written only half of.

    Raises:
        FileNotFoundError: downloads are switched off; :func:`fetch` adds the remedy.
    """
    if not source.download:
        raise FileNotFoundError("downloads are switched off")
    source.root.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=source.root, prefix=".download-")
