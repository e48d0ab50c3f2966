"""Parquet files of a study: any table, and the vectors and cosines that the paper's figures show."""

from __future__ import annotations

import io
from collections.abc import Collection

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from study.records.reading import Unreadable
from study.runtime.plain import visible_line

MAX_ROWS = 5_000_000
"""Rows of a Parquet file: 2,500 trials have some 100,000."""


def parquet(data: bytes, columns: Collection[str] | None = None) -> pa.Table:
    """A Parquet file's table, read with plain pyarrow (nothing in it can run code), without its metadata.

    Args:
        columns: those that are read, of those that are there; None for all.

    Raises:
        Unreadable: cut off, altered, or something else.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows > MAX_ROWS:
            raise Unreadable(f"{file.metadata.num_rows} rows, at most {MAX_ROWS} are read")
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise Unreadable("a column stands twice")
        wanted = names if columns is None else [name for name in names if name in columns]
        # pyarrow takes "attack" for "attack.width", too: it is selected again.
        table = file.read(None if columns is None else wanted, use_threads=False).select(wanted)
        table.validate(full=True)
    except Unreadable:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise Unreadable(f"no Parquet file ({visible_line(error, 160)})") from error
    return table.replace_schema_metadata(None)


def alike(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column can be read as another type: texts as texts, numbers as those of another width."""
    t = pa.types
    if t.is_dictionary(kind):
        return alike(kind.value_type, wanted)
    texts = (t.is_string, t.is_large_string, t.is_string_view)
    return bool(
        kind == wanted
        or t.is_null(kind)
        or (any(f(kind) for f in texts) and any(f(wanted) for f in texts))
        or (t.is_integer(kind) and t.is_integer(wanted))
        or (t.is_floating(kind) and t.is_floating(wanted))
    )


def columns_of(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of a schema, of its types; others are dropped, those that may be missing stay missing.

    Raises:
        Unreadable: a column is missing, of another type, or has no value where one must be.
    """
    have = {field.name: field.type for field in table.schema}
    kept = [field for field in schema if field.name in have or not field.nullable]
    for field in kept:
        if field.name not in have:
            raise Unreadable(f"column {field.name} is missing")
        if not alike(have[field.name], field.type):
            raise Unreadable(f"column {field.name} is {visible_line(have[field.name], 40)}, not {field.type}")
        if not field.nullable and table.column(field.name).null_count:
            raise Unreadable(f"column {field.name} has rows without a value")
    try:
        return table.select([field.name for field in kept]).cast(pa.schema(kept))
    except (pa.ArrowException, ValueError) as error:
        raise Unreadable(visible_line(error, 160)) from error


def vectors_of(data: bytes) -> dict[str, NDArray[np.float64]]:
    """``vectors.parquet``: name of a defense -> vectors (n, K), the clean ones (``none``) first.

    Raises:
        Unreadable: no clean and released vectors of the same classes in it.
    """
    table = parquet(data)
    scores = [name for name in table.column_names if name[:1] == "c" and name[1:].isdecimal()]
    if len(scores) < 2:
        raise Unreadable("no columns c0, c1, ... of vectors")
    wanted = [pa.field("defense", pa.string(), nullable=False)]
    wanted += [pa.field(name, pa.float64(), nullable=False) for name in scores]
    frame = columns_of(table, pa.schema(wanted)).to_pandas()
    if not (np.abs(frame[scores].to_numpy()) <= 2).all():  # false for NaN as well
        raise Unreadable("vectors that are no shares")
    groups = {str(name): rows[scores].to_numpy() for name, rows in frame.groupby("defense", sort=False)}
    if "none" not in groups or len(groups) < 2 or min(map(len, groups.values())) < 2:
        raise Unreadable("no clean and released vectors in it, at least two of each")
    return {name: groups[name] for name in sorted(groups, key=lambda name: name != "none")}


COSINE_COLUMNS = {
    "defense": pa.string(), "seed": pa.int64(), "step": pa.int64(),
    "cosine": pa.float64(), "private_loss": pa.float64(),
}  # fmt: skip


def cosine_of(data: bytes) -> pd.DataFrame:
    """``cosine.parquet``, see ``study.paper.diagnostics``.

    Raises:
        Unreadable: other columns, or no row.
    """
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in COSINE_COLUMNS.items()])
    frame = columns_of(parquet(data), schema).to_pandas()
    if frame.empty or not np.isfinite(frame[["cosine", "private_loss"]].to_numpy()).all():
        raise Unreadable("no rows of finite numbers")
    return frame
