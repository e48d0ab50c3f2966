"""The file of the learning curves: written, read back, and refused where it is no such file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mipoison.storage.files import Storage
from study.records.curves import CURVES, SCHEMA, curves_bytes, curves_of, read_curves
from study.records.reading import Unreadable, announce_left_out

ROW: dict[str, Any] = {
    "trial": "t0001-noise", "face": "train", "attack": "kernel", "seeds": [0, 1], "images": 722,
    "sizes": [45, 90, 180, 360], "errors": [0.05, 0.04, 0.035, 0.032], "limit": 0.03, "limit_low": 0.02,
    "limit_high": 0.031, "gain": 0.06, "gain_low": 0.03, "gain_high": 0.4, "scale": 0.3, "exponent": 0.7,
    "versions": "mipoison 0.1.0",
}  # fmt: skip


def test_rows_come_back_sorted_and_pandas_reads_the_file(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"face": "test"}, ROW | {"trial": "none"}]
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / CURVES).write_bytes(curves_bytes(rows))
    assert read_curves(Storage(tmp_path), "s") == [rows[2], rows[1], rows[0]]
    frame = pd.read_parquet(tmp_path / "s" / CURVES)
    assert list(frame) == SCHEMA.names
    assert frame["sizes"][0].tolist() == [45, 90, 180, 360]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trial": "../x"}, "not a known value"),
        ({"attack": "<b>"}, "not a known value"),
        ({"face": "both"}, "not a known value"),
        ({"sizes": [45, 90, 180]}, "3 sizes, 4 errors"),
        ({"sizes": [1, 2, 3], "errors": [0.1] * 3}, "3 sizes, 3 errors"),
        ({"sizes": list(range(1, 80)), "errors": [0.1] * 79}, "79 sizes"),
        ({"seeds": []}, "0 seeds"),
        ({"seeds": [-1]}, "seeds outside"),
        ({"sizes": [0, 90, 180, 360]}, "sizes outside"),
        ({"sizes": [90, 45, 180, 360]}, "not ascending"),
        ({"sizes": [45, 45, 180, 360]}, "not ascending"),
        ({"images": 0}, "images outside"),
        ({"errors": [0.05, 0.04, None, 0.03]}, "errors outside"),
        ({"errors": [0.05, 0.04, float("nan"), 0.03]}, "errors outside"),
        ({"errors": [0.05, 0.04, 2.0, 0.03]}, "errors outside"),
        ({"limit": -0.1}, "limit outside"),
        ({"limit_low": 0.05}, "not ascending"),
        ({"gain": 1.1}, "gain outside"),
        ({"scale": float("inf")}, "scale outside"),
        ({"exponent": 9.0}, "exponent outside"),
    ],
)
def test_what_is_no_curve(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        curves_of(curves_bytes([ROW | change]))


def test_what_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="two curves"):
        curves_of(curves_bytes([ROW, ROW]))
    assert read_curves(Storage(tmp_path), "s") == []
    (tmp_path / "s").mkdir()
    lines: list[str] = []
    pq.write_table(pa.table({"trial": ["none"]}), tmp_path / "s" / CURVES)
    with announce_left_out(lines.append):
        assert read_curves(Storage(tmp_path), "s") == []
    (tmp_path / "s" / CURVES).write_bytes(b"PAR1")
    with announce_left_out(lines.append):
        assert read_curves(Storage(tmp_path), "s") == []
    assert len(lines) == 2
    assert "column face is missing" in lines[0]
    assert all(line.startswith(f"s/{CURVES} is left out: ") for line in lines)
