"""Reads and writes a trial's reconstructed images, ``<study>/pictures/<trial>.npz`` (no pickles)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipoison.storage.files import Storage
from study.records.reading import Unreadable, fetch, leave_out
from study.records.reading.pictures import MAX_BYTES, archive_of, pictures_of


def write_pictures(storage: Storage, study: str, trial: str, pictures: Mapping[str, NDArray[Any]]) -> None:
    """Write a trial's images: attacker (or ``truth``) -> uint8 array (n, C, H, W)."""
    sink = io.BytesIO()
    np.savez_compressed(sink, **pictures)  # type: ignore[arg-type]
    storage.write(f"{study}/pictures/{trial}.npz", sink.getvalue())


def read_pictures(storage: Storage, study: str, trial: str) -> dict[str, NDArray[np.float64]]:
    """A trial's images in [0, 1]; empty if the file does not exist or is invalid."""
    name = f"{study}/pictures/{trial}.npz"
    try:
        data = fetch(storage, name, MAX_BYTES)
        if data is None:
            return {}
        return {key: images / 255 for key, images in archive_of(data).items()}
    except Unreadable as error:
        leave_out(name, error)
        return {}


def kept_pictures(storage: Storage, name: str, trial: str) -> dict[str, NDArray[np.float64]] | None:
    """A trial's images in [0, 1] from a compact copy's ``pictures.parquet``.

    None if there is no such file; empty if it is invalid or lacks the trial.
    """
    try:
        data = fetch(storage, name)
        if data is None:
            return None
        return {key: images / 255 for key, images in pictures_of(data).get(trial, {}).items()}
    except Unreadable as error:
        leave_out(name, error)
        return {}
