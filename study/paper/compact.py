"""A small copy of the records behind the tables and figures, fit to be published: no face is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.driver import ABOUT
from study.paper.diagnostics import COSINE, VECTORS
from study.paper.experiments import FACES
from study.paper.figures import PICTURES, pictures
from study.paper.render import Measured
from study.paper.run import FOLDER
from study.render import EPISODES


def write_compact(found: Mapping[str, Measured], out: Path) -> None:
    """Per run: episodes, settings, diagnostics and (but for faces) the pictures, as Parquet and JSON."""
    for run, measured in found.items():
        folder = out / FOLDER / measured.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ABOUT).write_text(json.dumps(dict(measured.about), indent=2, sort_keys=True) + "\n")
        _write(measured.episodes.dropna(axis=1, how="all"), folder / EPISODES)
        for name in (VECTORS, COSINE):
            data = measured.storage.read(f"{measured.folder}/{name}")
            if data is not None:
                (folder / name).write_bytes(data)
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
            _write(pd.DataFrame(rows), folder / PICTURES)


def _write(frame: pd.DataFrame, path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, compression="zstd")
