"""Validates reconstructed images: ``pictures/<trial>.npz``, ``pictures.parquet``, and cached episodes."""

from __future__ import annotations

import io
import math
import zipfile
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mipoison.data.images import READ_ERRORS
from study.records.reading import Unreadable
from study.records.reading.tables import columns_of, parquet
from study.runtime.plain import visible_line

MAX_BYTES = 2**26
"""Largest total size of the images of one file, uncompressed."""


def check_pictures(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Return images if they are uint8 (n, C, H, W) with one or three channels.

    Raises:
        Unreadable: another type or shape.
    """
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or 0 in shape or shape[1] not in (1, 3):
        raise Unreadable(f"pictures of {visible_line(images.dtype, 40)} {shape}, not uint8 (n, 1 or 3, H, W)")
    return images


def archive_of(data: bytes) -> dict[str, NDArray[np.uint8]]:
    """Read ``pictures/<trial>.npz``: attacker (or ``truth``) -> uint8 images (n, C, H, W), all of one shape.

    Raises:
        Unreadable: not such an archive, with pickled objects in it, or too large.
    """
    try:
        # np.load tries to unpickle what is neither archive nor array; ZipFile has refused all but archives.
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            unpacked = sum(member.file_size for member in members.infolist())
            if unpacked > MAX_BYTES:
                raise Unreadable(f"{unpacked} bytes of pictures, at most {MAX_BYTES} are read")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            found = {str(key): check_pictures(np.asarray(archive[key])) for key in archive.files}
    except Unreadable:
        raise
    except (TypeError, KeyError, RuntimeError, TokenError, *READ_ERRORS) as error:
        raise Unreadable(f"not an archive of pictures ({visible_line(error, 160)})") from error
    return one_shape(found)


def one_shape(pictures: dict[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.uint8]]:
    """Return pictures if they have one shape: figures show them side by side.

    Raises:
        Unreadable: they have several shapes.
    """
    if len({images.shape for images in pictures.values()}) > 1:
        raise Unreadable("pictures of several shapes")
    return pictures


def pictures_of(data: bytes) -> dict[str, dict[str, NDArray[np.uint8]]]:
    """Read ``pictures.parquet``: trial -> attacker (or ``truth``) -> uint8 images (n, C, H, W).

    Raises:
        Unreadable: other columns, or pixels that do not fit their shape.
    """
    whole = pa.list_(pa.int64())
    table = parquet(data)
    if "shape" in table.column_names and not (
        pa.types.is_list(kind := table.schema.field("shape").type) and pa.types.is_integer(kind.value_type)
    ):
        raise Unreadable(f"column shape is {visible_line(kind, 40)}, not a list of numbers")
    rest = pa.schema(
        [
            pa.field("trial", pa.string(), nullable=False),
            pa.field("attack", pa.string(), nullable=False),
            pa.field("pixels", pa.binary(), nullable=False),
        ]
    )
    if "shape" not in table.column_names:
        raise Unreadable("column shape is missing")
    try:
        shapes = table.column("shape").cast(whole).to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise Unreadable(visible_line(error, 160)) from error
    found: dict[str, dict[str, NDArray[np.uint8]]] = {}
    for row, shape in zip(columns_of(table, rest).to_pylist(), shapes, strict=True):
        sizes = [n for n in shape or [] if isinstance(n, int) and n > 0]
        if len(sizes) != 4 or sizes != shape or math.prod(sizes) != len(row["pixels"]):
            raise Unreadable(f"pixels of shape {visible_line(shape, 40)} in {len(row['pixels'])} bytes")
        images = np.frombuffer(row["pixels"], dtype=np.uint8).reshape(sizes)
        found.setdefault(row["trial"], {})[row["attack"]] = check_pictures(images)
    return {trial: one_shape(images) for trial, images in found.items()}


def episode_of(value: Any, schema: pa.Schema) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Validate a finished episode from the artifact store: its record, and its images (n, C, H, W).

    Args:
        schema: of records; columns that are added when a trial completes may be missing.

    Raises:
        Unreadable: not such an episode.
    """
    record = value.get("record") if isinstance(value, dict) else None
    if not isinstance(record, dict) or record.get("status") != "ok":
        raise Unreadable("not the record of a finished episode")
    for name, item in record.items():
        kind = _PLAIN[schema.field(name).type] if name in schema.names else ()
        if item is not None and not (isinstance(item, kind) and (kind is bool) == isinstance(item, bool)):
            raise Unreadable(f"{visible_line(name, 40)} = {visible_line(item, 40)}: not of its column's type")
    try:
        picture = np.array(value["picture"], dtype=np.uint8)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise Unreadable(f"no pictures ({visible_line(error, 80)})") from error
    return record, check_pictures(picture)


_PLAIN: dict[pa.DataType, Any] = {
    pa.string(): str, pa.bool_(): bool, pa.int64(): int, pa.float64(): int | float,
}  # fmt: skip
