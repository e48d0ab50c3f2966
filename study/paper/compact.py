"""Writes a small copy of the records behind the tables and figures, to be published: without faces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pandas as pd

from mipoison.storage.files import Storage
from study.paper.diagnostics import COSINE, VECTORS
from study.paper.experiments import FACES
from study.paper.figures import PICTURES, pictures
from study.paper.measured import Measured
from study.paper.run import FOLDER
from study.records.finished import EPISODES, small_parquet
from study.records.reading import Unreadable, fetch
from study.records.store import STUDY_FILE


def write_compact(found: Mapping[str, Measured], out: Path) -> None:
    """Write each run's episodes, settings, diagnostics and images as Parquet and JSON; no images of faces."""
    for run, measured in found.items():
        target = Storage(out).below(f"{FOLDER}/{measured.folder}")  # symbolic links are not followed
        target.write(STUDY_FILE, (json.dumps(dict(measured.about), indent=2, sort_keys=True) + "\n").encode())
        target.write(EPISODES, small_parquet(measured.episodes.dropna(axis=1, how="all")))
        for name in (VECTORS, COSINE):
            with suppress(Unreadable):  # the figures warn of it
                data = fetch(measured.storage, f"{measured.folder}/{name}")
                if data is not None:
                    target.write(name, data)
        rows = [
            {
                "trial": trial,
                "attack": attack,
                "shape": list(x.shape),
                "pixels": (x * 255).round().astype("uint8").tobytes(),
            }
            for trial in sorted(measured.episodes["trial"].unique())
            for attack, x in pictures(measured, str(trial)).items()
        ]
        if rows and run != FACES:
            target.write(PICTURES, small_parquet(pd.DataFrame(rows)))
