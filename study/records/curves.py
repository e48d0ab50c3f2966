"""Learning curves of a study's settings: one small Parquet file, ``<study>/learning_curves.parquet``."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mipoison.metrics.learning_curve import EXPONENTS, LEAST_SIZES
from mipoison.storage.files import Storage
from study.records.reading import Unreadable, fetch, leave_out
from study.records.reading.bounds import BOUNDS, COUNT, ERROR, GAIN, LARGEST
from study.records.reading.tables import columns_of, parquet

CURVES = "learning_curves.parquet"
FACES = {"train": "", "test": "_test"}
"""Face: private training or test images -> ending of its columns in the records."""
SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in {
            "trial": pa.string(), "face": pa.string(), "attack": pa.string(), "seeds": pa.list_(pa.int64()),
            "images": pa.int64(), "sizes": pa.list_(pa.int64()), "errors": pa.list_(pa.float64()),
            "limit": pa.float64(), "limit_low": pa.float64(), "limit_high": pa.float64(),
            "gain": pa.float64(), "gain_low": pa.float64(), "gain_high": pa.float64(),
            "scale": pa.float64(), "exponent": pa.float64(), "versions": pa.string(),
        }.items()
    ]
)  # fmt: skip
"""One row per setting (``trial``) and face. ``sizes``: numbers of the attacker's own images, ascending;
``errors``: mean errors at them, over the ``images`` private images of all ``seeds`` together. The law is
``error = limit + scale size^-exponent``; ``gain`` = 1 - limit / the error at the
largest size; ``_low`` and ``_high`` are 95 % bootstrap intervals over the private images and, from two seeds
on, over the attacker's; with one seed they are too narrow."""
MOST = 64
"""Most sizes, and most seeds, of a curve that is read."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def curves_bytes(rows: list[dict[str, Any]]) -> bytes:
    """The file's content, from rows of the schema: sorted by trial and face."""
    sink = io.BytesIO()
    ordered = sorted(rows, key=lambda row: (row["trial"], row["face"]))
    pq.write_table(pa.Table.from_pylist(ordered, schema=SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def curves_of(data: bytes) -> list[dict[str, Any]]:
    """Read and validate the file's content.

    Raises:
        Unreadable: names the first fault.
    """
    rows = columns_of(parquet(data, frozenset(SCHEMA.names)), SCHEMA).to_pylist()
    for row in rows:
        _check(row)
    if len({(row["trial"], row["face"]) for row in rows}) < len(rows):
        raise Unreadable("a setting has two curves of one face")
    return rows


def _check(row: Mapping[str, Any]) -> None:
    """Raise Unreadable for values that no curve has."""
    if not (_NAME.fullmatch(row["trial"]) and _NAME.fullmatch(row["attack"]) and row["face"] in FACES):
        raise Unreadable("trial, attack or face is not a known value")
    sizes, errors = row["sizes"], row["errors"]
    if not (
        LEAST_SIZES <= len(sizes) <= MOST and len(errors) == len(sizes) and 1 <= len(row["seeds"]) <= MOST
    ):
        raise Unreadable(f"{len(sizes)} sizes, {len(errors)} errors, {len(row['seeds'])} seeds")
    limits = [row["limit_low"], row["limit"], row["limit_high"]]
    bounded = {
        "seeds": (row["seeds"], BOUNDS["seed"]),
        "sizes": (sizes, COUNT),
        "images": ([row["images"]], COUNT),
        "errors": (errors, ERROR),
        "limit": (limits, ERROR),
        "gain": ([row["gain_low"], row["gain"], row["gain_high"]], GAIN),
        "scale": ([row["scale"]], (0.0, LARGEST)),
        "exponent": ([row["exponent"]], EXPONENTS),
    }
    for name, (values, (least, most)) in bounded.items():
        if any(value is None for value in values) or not np.all(
            (np.array(values) >= least) & (np.array(values) <= most)
        ):
            raise Unreadable(f"{name} outside {least:.6g} to {most:.6g}")
    if sizes != sorted(set(sizes)) or not (limits[0] <= limits[2] and row["gain_low"] <= row["gain_high"]):
        raise Unreadable("sizes, or the ends of an interval, are not ascending")


def read_curves(storage: Storage, study: str) -> list[dict[str, Any]]:
    """The rows of a study's file; none without one, or if it is invalid (then with a warning)."""
    name = f"{study}/{CURVES}"
    try:
        data = fetch(storage, name)
        return [] if data is None else curves_of(data)
    except Unreadable as error:
        leave_out(name, error)
        return []
