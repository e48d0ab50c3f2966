"""A trial's reconstructions, kept as ``<study>/pictures/<trial>.npz``: plain numbers, never pickles."""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipoison.storage import Storage

log = logging.getLogger(__name__)


def write_pictures(storage: Storage, study: str, trial: str, pictures: Mapping[str, NDArray[Any]]) -> None:
    """Write attacker (or ``truth``) -> uint8 images (n, C, H, W)."""
    sink = io.BytesIO()
    np.savez_compressed(sink, **pictures)  # type: ignore[arg-type]
    storage.write(f"{study}/pictures/{trial}.npz", sink.getvalue())


def read_pictures(storage: Storage, study: str, trial: str) -> dict[str, NDArray[np.float64]]:
    """Images in [0, 1]; empty if there are none, or what is there is not plain numbers."""
    name = f"{study}/pictures/{trial}.npz"
    data = storage.read(name)
    if data is None:
        return {}
    try:
        # NumPy tries a pickle where it finds neither an archive nor an array: only archives get there.
        with zipfile.ZipFile(io.BytesIO(data)), np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {key: archive[key].astype(np.float64) / 255 for key in archive.files}
    except (ValueError, TypeError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("%s is left out: %s", name, error)
        return {}
