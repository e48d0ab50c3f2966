"""Validates Parquet files: any table, and the vectors and cosines that the paper's figures show."""

from __future__ import annotations

import io
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from study.records.reading import Unreadable
from study.runtime.plain import visible_line

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 5_000_000
"""Largest number of rows that is read. 2,500 trials have some 100,000."""


def parquet(data: bytes, columns: Collection[str] | None = None) -> pa.Table:
    """Read a Parquet file with plain pyarrow (no content can run code) and drop its metadata.

    Args:
        columns: the columns to read, where the file has them; None for all.

    Raises:
        Unreadable: not a Parquet file, truncated, altered, or too large.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows > MAX_ROWS:
            raise Unreadable(f"{file.metadata.num_rows} rows, at most {MAX_ROWS} are read")
        # A row may hold lists of any length: a few bytes, compressed.
        if (most := _most_values(file.metadata)) > MAX_ROWS:
            raise Unreadable(f"{most} values in a column, at most {MAX_ROWS} are read")
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise Unreadable("two columns have the same name")
        wanted = names if columns is None else [name for name in names if name in columns]
        # pyarrow also reads "attack.width" when asked for "attack": select the exact names.
        table = file.read(None if columns is None else wanted, use_threads=False).select(wanted)
        table.validate(full=True)
    except Unreadable:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise Unreadable(f"not a Parquet file ({visible_line(error, 160)})") from error
    return table.replace_schema_metadata(None)


def _most_values(metadata: pq.FileMetaData) -> int:
    """The number of values in the column that has the most, elements of lists included."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    counts = (sum(g.column(j).num_values for g in groups) for j in range(metadata.num_columns))
    return max(counts, default=0)


def alike(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a type can be cast to another: text to text, numbers to numbers of another width."""
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
    """Select a schema's columns and cast them to its types. Nullable columns may be missing, and stay so.

    Raises:
        Unreadable: a column that is not nullable is missing or has nulls, or a type does not fit.
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
    """Read ``vectors.parquet``: name of a defense -> vectors (n, K), the clean ones (``none``) first.

    Raises:
        Unreadable: it lacks clean or released vectors.
    """
    table = parquet(data)
    scores = [name for name in table.column_names if name[:1] == "c" and name[1:].isdecimal()]
    if len(scores) < 2:
        raise Unreadable("columns c0, c1, ... are missing")
    wanted = [pa.field("defense", pa.string(), nullable=False)]
    wanted += [pa.field(name, pa.float64(), nullable=False) for name in scores]
    frame = columns_of(table, pa.schema(wanted)).to_pandas()
    if not (np.abs(frame[scores].to_numpy()) <= 2).all():  # false for NaN as well
        raise Unreadable("vectors with entries that are not shares")
    groups = {str(name): rows[scores].to_numpy() for name, rows in frame.groupby("defense", sort=False)}
    if "none" not in groups or len(groups) < 2 or min(map(len, groups.values())) < 2:
        raise Unreadable("fewer than two clean (none) or two released vectors")
    return {name: groups[name] for name in sorted(groups, key=lambda name: name != "none")}


COSINE_COLUMNS = {
    "defense": pa.string(), "seed": pa.int64(), "step": pa.int64(),
    "cosine": pa.float64(), "private_loss": pa.float64(),
}  # fmt: skip


def cosine_of(data: bytes) -> pd.DataFrame:
    """Read ``cosine.parquet``, which ``study.paper.diagnostics`` writes.

    Raises:
        Unreadable: other columns, no rows, or numbers that are not finite.
    """
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in COSINE_COLUMNS.items()])
    frame = columns_of(parquet(data), schema).to_pandas()
    if frame.empty or not np.isfinite(frame[["cosine", "private_loss"]].to_numpy()).all():
        raise Unreadable("no rows, or numbers that are not finite")
    return frame
