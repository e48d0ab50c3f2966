"""Parquet of a study: columns of the types that they have, nothing twice, vectors that are shares."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.records.reading import Unreadable
from study.records.reading import tables as reading
from study.records.reading.tables import alike, columns_of, cosine_of, parquet, vectors_of


def written(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_wanted_columns_alone_and_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"attack": ["a"], "attack.width": [1]}).replace_schema_metadata({"pandas": "{}"})
    found = parquet(written(table), {"attack", "more"})
    assert (found.column_names, found.schema.metadata) == (["attack"], None)
    with pytest.raises(Unreadable, match="not a Parquet file"):
        parquet(written(table)[:-9])
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(Unreadable, match="two columns have the same name"):
        parquet(written(twice))
    monkeypatch.setattr(reading, "MAX_ROWS", 9)
    assert parquet(written(pa.table({"sizes": [[0] * 5, [0] * 4]}))).num_rows == 2
    with pytest.raises(Unreadable, match="10 values in a column, at most 9"):
        parquet(written(pa.table({"sizes": [[0] * 5, [0] * 5]})))
    monkeypatch.setattr(reading, "MAX_ROWS", 0)
    with pytest.raises(Unreadable, match="1 rows, at most 0"):
        parquet(written(table))


def test_types_that_are_alike() -> None:
    assert alike(pa.int32(), pa.int64())
    assert alike(pa.dictionary(pa.int8(), pa.large_string()), pa.string())
    assert alike(pa.null(), pa.float64())
    for kind, wanted in ((pa.int64(), pa.float64()), (pa.string(), pa.int64()), (pa.bool_(), pa.int64())):
        assert not alike(kind, wanted)


def test_columns_of_a_schema() -> None:
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.string())])
    assert columns_of(pa.table({"a": pa.array([1], pa.int8()), "c": [2]}), schema).to_pydict() == {"a": [1]}
    for data, said in (({"b": ["x"]}, "a is missing"), ({"a": ["x"]}, "a is string, not int64"),
                       ({"a": pa.array([None, 1])}, "a has rows without a value")):  # fmt: skip
        with pytest.raises(Unreadable, match=said):
            columns_of(pa.table(data), schema)


VECTORS: dict[str, list[Any]] = {
    "defense": ["lpa", "none", "lpa", "none"], "c0": [0.5, 0.25, 1.0, 0.0], "c1": [0.5, 0.75, 0.0, 1.0],
}  # fmt: skip


def test_clean_vectors_come_first() -> None:
    found = vectors_of(written(pa.table(VECTORS)))
    assert list(found) == ["none", "lpa"]
    assert found["none"].tolist() == [[0.25, 0.75], [0.0, 1.0]]


@pytest.mark.parametrize(
    "change",
    [{"c0": [0.5, 0.25, 3.0, 0.0]}, {"c0": [0.5, 0.25, float("nan"), 0.0]}, {"defense": ["lpa"] * 4},
     {"defense": ["lpa", "none", "lpa", "noise"]}],
)  # fmt: skip
def test_what_are_no_vectors(change: dict[str, list[Any]]) -> None:
    with pytest.raises(Unreadable):
        vectors_of(written(pa.table(VECTORS | change)))


def test_cosines_are_finite() -> None:
    rows = {"defense": ["lpa"], "seed": [0], "step": [1], "cosine": [0.5], "private_loss": [0.1]}
    assert cosine_of(written(pa.table(rows)))["cosine"].tolist() == [0.5]
    for change in ({"cosine": [float("inf")]}, {name: [] for name in rows}):
        with pytest.raises(Unreadable):
            cosine_of(written(pa.table(rows | change)))
