"""Shapes that a file of a study's folder may take: damaged, or written by somebody with other aims."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HOSTILE = "x\n# h\r```\n|a|<b>[l](http://e)\x1b[31m\u202e\x00$\\frac$"
DEEP = "[" * 100_000
_TEXTS = (
    "", " ", "[]", "{}", "null", "true", "0", "NaN", '"x"', "[1, 2]", "{", '{"a": 1, "a": 2}', DEEP,
    '{"settings": null}', '{"settings": []}', '{"settings": {}}', '{"settings": "x"}',
    '{"settings": {"max_accuracy_drop": "x", "scale": 3}}', '{"settings": {"max_accuracy_drop": NaN}}',
    '{"settings": {"max_accuracy_drop": 1e999}}',
    '{"settings": {"max_accuracy_drop": ' + "9" * 400 + "}}",
    '{"settings": {"max_accuracy_drop": true}}', '{"settings": {"scale": {}}, "study": ["x"]}',
    '{"study": 3, "command": 7, "started": [], "settings": {}}', '{"study": "../x", "command": [1, {}]}',
    json.dumps({"study": HOSTILE, "settings": {"scale": HOSTILE}, "versions": HOSTILE}),
    '{"study": "\\ud800", "settings": {}}', '{"command": ["--data-root"], "settings": {"dataset": 1}}',
    '{"a":' * 300 + "1" + "}" * 300, "9" * 5000, '{"x": ' + "9" * 5000 + "}",
)  # fmt: skip
JSON_TEXTS = (*(text.encode() for text in _TEXTS), b"\xff\xfe\x00", b"\x80abc", b"PK\3\4", bytes(range(256)))
"""For ``study.json``, and any other JSON file."""


def started_texts() -> Iterator[bytes]:
    """``trials/<trial>.json``: a setting, with one thing of another kind."""
    good: dict[str, Any] = {"defense": "rounding", "knobs": {"decimals": 2}, "attempt": 0}
    defenses = ("nope", "", 3, None, [], {}, "none", "mid", HOSTILE)
    decimals = ("x", -1, 1e9, True, None, [])
    attempts = ("x", -1, True, None, 1.5, 10**30, [], {})
    changes: list[dict[str, Any]] = [{"defense": value} for value in defenses]
    changes += [{"knobs": value} for value in ([], None, 3, "x", {"nope": 1}, {"": {}})]
    changes += [{"knobs": {"decimals": value}} for value in decimals]
    changes += [{"attempt": value} for value in attempts]
    changes += [{"defense": "lpa", "knobs": knobs} for knobs in ({"engine": "planted"}, {"budget": 0.0})]
    for change in changes:
        yield json.dumps(good | change).encode()


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _replaced(table: pa.Table, name: str, values: Any, kind: pa.DataType | None = None) -> pa.Table:
    at = table.schema.get_field_index(name)
    column = pa.array(values, kind)
    return table.set_column(at, pa.field(name, column.type), column)


def tables_like(data: bytes, rng: random.Random, columns: int = 6) -> Iterator[tuple[str, bytes]]:
    """A Parquet file in other shapes: garbage, other schemas, types and values, rows twice."""
    table = pq.read_table(io.BytesIO(data))
    n = len(table)
    yield from (
        ("empty", b""),
        ("garbage", b"x"),
        ("cut off", data[: len(data) // 2]),
        ("magic", b"PAR1" * 4),
    )
    flipped = bytearray(data)
    for _ in range(20):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    yield "bits flipped", bytes(flipped)
    yield "another schema", parquet_bytes(pa.table({"a": [1, 2], "b": [[1], [2]]}))
    yield "no column", parquet_bytes(pa.table({}))
    yield "no row", parquet_bytes(table.slice(0, 0))
    yield "rows twice", parquet_bytes(pa.concat_tables([table, table]))
    yield "one row", parquet_bytes(table.slice(0, 1))
    yield "a column more", parquet_bytes(table.append_column("more", pa.array([{"x": [1]}] * n)))
    text = json.dumps({"index_columns": [{}], "columns": [3]})
    yield "metadata", parquet_bytes(table.replace_schema_metadata({"pandas": text}))
    wanted = ["trial", "defense", "attack", "status", "seed", "attempt", "dataset", "scene.limit", "error"]
    wanted += [
        "reconstruction_error",
        "attack_accuracy",
        "confidence_distortion",
        "defense.budget",
        "shape",
        "pixels",
    ]
    rest = [c for c in table.column_names if c not in wanted]
    for name in [c for c in wanted if c in table.column_names] + rng.sample(rest, min(columns, len(rest))):
        yield f"{name} dropped", parquet_bytes(table.drop_columns([name]))
        others: dict[str, tuple[Any, pa.DataType | None]] = {
            "of nulls": ([None] * n, table.schema.field(name).type),
            "of null type": ([None] * n, None),
            "of texts": ([HOSTILE] * n, None),
            "of numbers": ([-1.5] * n, None),
            "not finite": ([float("nan"), float("inf")] * n, None),
            "huge": ([2**62] * n, None),
            "negative": ([-3] * n, None),
            "nested": ([{"a": [1]}] * n, None),
            "of bytes": ([b"\xff\xfe"] * n, None),
            "of invalid text": (pa.array([b"\xff\xfe"] * n).view(pa.string()), pa.string()),
        }
        for how, (values, kind) in others.items():
            yield f"{name} {how}", parquet_bytes(_replaced(table, name, values[:n], kind))


def archives(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """``pictures/<trial>.npz`` in other shapes."""
    good = np.zeros((2, 1, 16, 16), dtype=np.uint8)
    arrays: dict[str, dict[str, Any]] = {
        "no truth": {"passive": good},
        "a vector": {"truth": np.zeros(3, np.uint8), "passive": good},
        "floats": {"truth": good.astype(float), "passive": good * np.nan},
        "two channels": {"truth": np.zeros((2, 2, 16, 16), np.uint8), "passive": good},
        "several shapes": {"truth": good, "passive": good[:1], "ridge": good[..., :8]},
        "nothing": {},
        "empty": {"truth": good[:0], "passive": good[:0]},
        "texts": {"truth": np.array(["x"]), "passive": np.array([b"x"])},
        "objects": {"truth": np.array([{}], dtype=object), "passive": good},
        "large": {"truth": np.zeros((3000, 3, 100, 100), np.uint8), "passive": good},
    }
    for name, members in arrays.items():
        sink = io.BytesIO()
        np.savez_compressed(sink, **members)
        yield name, sink.getvalue()
    yield from (("not an archive", b"x"), ("torn", b"PK\3\4 torn"), ("no bytes", b""))
    flipped = bytearray(sink.getvalue())
    flipped[rng.randrange(len(flipped))] ^= 255
    yield "a byte flipped", bytes(flipped)


Plant = Callable[[Path], None]


def file(name: str, data: bytes) -> Plant:
    """Puts bytes where a study keeps a file."""

    def plant(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)

    return plant
