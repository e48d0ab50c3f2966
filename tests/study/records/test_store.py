"""Episode records: the schema has every column, and other tools can read the files."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mipoison.config import ConfigError
from mipoison.storage.files import Storage
from study.records.schema import episode_schema, to_table
from study.records.store import Records, check_name
from tests.study.records.helpers import row

REQUIRED = {"episode_id", "study", "trial", "seed", "attempt", "defense", "attack", "status"}
BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/a",
    "a\\b",
    ".hidden",
    "-x",
    "a b",
    "a\n",
    "a\0b",
    "ä",
    "x" * 101,
]


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(Storage(tmp_path / "root"), "s")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "root" / "s" / "episodes"


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_record_without_an_identity_is_not_written(records: Records, folder: Path, name: str) -> None:
    rows = [row() | {"study": "s", "trial": "t", "attempt": 0}]
    rows[0].pop(name)
    with pytest.raises((pa.ArrowInvalid, ValueError)):
        pq.write_table(to_table(rows), pa.BufferOutputStream())
    assert not folder.exists()


# ---------------------------------------------------------------- files


def test_missing_is_null_and_other_tools_read_the_file(records: Records, folder: Path) -> None:
    failed = row(seed=1, status="failed", error="RuntimeError: x") | {"model_accuracy": None, "queries": None}
    failed.pop("check.below_label_only")
    records.write_trial("t0001-noise", 0, [row(), failed])
    path = folder / "t0001-noise.a0.parquet"

    table = pq.read_table(path)
    # The file itself holds the types and which columns are nullable.
    assert table.schema.equals(episode_schema())
    got = table.to_pylist()
    for given, read in zip([row(), failed], got, strict=True):
        expected = given | {"study": "s", "trial": "t0001-noise", "attempt": 0}
        assert read == {n: expected.get(n) for n in table.schema.names}
    assert got[1]["model_accuracy"] is None
    assert got[1]["check.below_label_only"] is None
    assert table.column("excess_leakage").null_count == 2

    frame = pd.read_parquet(path)
    assert frame["model_accuracy"][0] == 0.9
    assert frame["defense.budget"].dtype == float
    assert frame[["model_accuracy", "queries", "check.below_label_only"]].isna().to_numpy().tolist() == [
        [False] * 3,
        [True] * 3,
    ]
    assert frame.loc[1, "error"] == "RuntimeError: x"
    assert records.read_trial("t0001-noise") == got


def test_all_episodes_are_read_in_order_with_nullable_types(records: Records) -> None:
    records.write_trial("t0002-noise", 0, [row(seed=1, attack="raw"), row(seed=1), row(seed=0)])
    records.write_trial("t0001-rounding", 0, [row(queries=None)])
    frame = records.read()
    assert frame[["trial", "seed", "attack"]].to_numpy().tolist() == [
        ["t0001-rounding", 0, "passive"],
        ["t0002-noise", 0, "passive"],
        ["t0002-noise", 1, "passive"],
        ["t0002-noise", 1, "raw"],
    ]
    assert list(frame.columns) == episode_schema().names
    assert str(frame["queries"].dtype) == "Int64"  # not a float because one is missing
    assert str(frame["check.below_label_only"].dtype) == "boolean"
    assert frame["queries"].isna().tolist() == [True, False, False, False]


def test_nothing_yet(records: Records) -> None:
    assert records.finished() == {}
    assert records.started() == {}
    assert records.read_trial("t") == []
    assert records.read_json("study.json") is None
    assert list(records.read().columns) == episode_schema().names
    assert len(records.read()) == 0


@pytest.mark.parametrize("attempts", [(0, 1), (2, 0, 1), (0, 9, 10), (99, 100)])
def test_the_latest_attempt_wins(records: Records, attempts: tuple[int, ...]) -> None:
    for attempt in attempts:
        records.write_trial("t", attempt, [row(model_accuracy=attempt / 1000)])
    last = max(attempts)
    assert records.finished() == {"t": f"s/episodes/t.a{last}.parquet"}
    assert [r["attempt"] for r in records.read_trial("t")] == [last]
    assert records.read()["attempt"].tolist() == [last]


def test_half_written_files_are_ignored(records: Records, folder: Path) -> None:
    records.write_trial("t", 0, [row()])
    records.write_json("trials/t.json", {"defense": "noise", "knobs": {}, "attempt": 0})
    half = (folder / "t.a0.parquet").read_bytes()[:100]
    (folder / ".t.a1.parquet.0123.tmp").write_bytes(half)
    (folder / ".u.a0.parquet").write_bytes(half)
    (folder / "notes.txt").write_text("not ours")
    (folder.parent / "trials" / ".u.json.0123.tmp").write_text("{")
    assert list(records.finished()) == list(records.started()) == ["t"]
    assert len(records.read()) == 1


def test_a_write_that_dies_leaves_no_trial(
    records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        records.write_trial("t", 0, [row()])
    assert records.finished() == {}
    assert records.read_trial("t") == []
    assert list(folder.iterdir()) == []


def test_started_and_json_round_trip(records: Records) -> None:
    spec = {"defense": "noise", "knobs": {"budget": 1e-4, "randomness": "keyed"}, "attempt": 0}
    records.write_json("trials/t0001-noise.json", spec)
    records.write_json("study.json", {"limit": None, "names": ["ä", "b"]})
    assert records.started() == {"t0001-noise": spec}
    assert records.read_json("study.json") == {"limit": None, "names": ["ä", "b"]}


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_cannot_escape(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="study name"):
        Records(Storage(tmp_path / "root"), name)
    with pytest.raises(ConfigError, match="trial name"):
        Records(Storage(tmp_path / "root"), "s").write_trial(name, 0, [row()])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "0", "digits-same-2", "A.b_c-d", "a..b", "x" * 100])
def test_plain_names_are_accepted(name: str) -> None:
    assert check_name(name) == name


def test_two_studies_and_look_alike_trials_do_not_mix(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    first, second = Records(storage, "s"), Records(storage, "s-2")
    first.write_trial("t", 0, [row()])
    first.write_trial("t.a5", 0, [row(seed=5)])
    second.write_trial("t", 3, [row(seed=3)])
    assert list(first.finished()) == ["t", "t.a5"]
    assert first.read()["seed"].tolist() == [0, 5]
    assert [r["seed"] for r in first.read_trial("t")] == [0]
    assert second.read()["seed"].tolist() == [3]
    assert second.read()["study"].tolist() == ["s-2"]


def test_a_driver_reads_every_file_once_and_moves_what_it_cannot_read(
    records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(40):  # more than are read at once
        records.write_trial(f"t{i:04d}", 0, [row(episode_id=f"e{i}")])
    records.write_trial("t0003", 1, [row(episode_id="again")])
    broken = sorted(folder.glob("*.parquet"))[7]
    broken.write_bytes(broken.read_bytes()[:100])
    read, told = list[str](), list[tuple[int, int]]()
    original = Storage.read

    def reading(self: Storage, name: str, *most: int) -> bytes | None:
        read.append(name)
        return original(self, name, *most)

    monkeypatch.setattr(Storage, "read", reading)
    finished, moved = records.read_and_move_damaged(lambda *parts: told.append(parts))
    assert sorted(read) == sorted({*read})
    assert len(read) == 41
    assert told == [(i, 40) for i in range(40)]
    assert [name.rsplit("/", 1)[1] for name in moved] == [broken.name]
    assert not broken.exists()
    assert len(list((folder.parent / "damaged").iterdir())) == 1
    assert list(finished) == [f"t{i:04d}" for i in range(40) if f"t{i:04d}.a0.parquet" != broken.name]
    assert [r["episode_id"] for r in finished["t0003"]] == ["again"]
    assert records.read_trials() == finished
