"""Validates episode records: the rows of a trial's file, and those of a compact copy, trial by trial."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mipoison.defenses import ANCHORS
from study.records.reading import Unreadable, leave_out
from study.records.reading.bounds import check_bounds
from study.records.reading.documents import config_from
from study.records.reading.tables import columns_of, parquet
from study.records.status import PRUNED
from study.runtime.plain import visible_line

STATUSES = {"ok", "failed", PRUNED}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_CHECKED = ("episode_id", "study", "trial", "seed", "attempt", "defense", "attack", "status",
         "dataset", "auxiliary")  # fmt: skip
_MAY_DIFFER = ("scene.seed", "scene.victim", "scene.victim_state", "scene.dataset")
"""Columns of a scene in which a study's trials may differ: the seed, and paths of equal files."""


def episodes_of(data: bytes, trial: str, schema: pa.Schema) -> pa.Table:
    """Read and validate a trial's file.

    Args:
        schema: the columns to read, including those of :func:`needed_to_check`.

    Raises:
        Unreadable: truncated or altered, of another trial or schema, or with values out of bounds.
    """
    table = parquet(data, frozenset(schema.names))
    if not table.schema.equals(schema):  # written by an older version, or invalid
        table = columns_of(table, schema)
    check_trial(table, trial)
    have = set(
        table.column_names
    )  # a lookup in the table for each column would take longer than reading the file
    for field in schema:  # an older version did not measure it: null
        if field.name not in have:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def compact_of(data: bytes, schema: pa.Schema, name: str) -> pa.Table:
    """Read and validate ``episodes.parquet`` of a compact copy. Invalid trials are left out with a warning.

    Args:
        name: the file's name, for warnings.

    Raises:
        Unreadable: not a Parquet file, or of another schema.
    """
    table = columns_of(parquet(data, frozenset(schema.names)), schema)
    kept = []
    trials = _by_trial(table)
    for trial in sorted(trials, key=lambda trial: (trial not in ANCHORS, trial)):
        rows = trials[trial]
        try:
            check_trial(rows, trial)
        except Unreadable as error:
            leave_out(f"{name}, trial {trial}", error)
        else:
            kept.append((trial, rows))
    found = [rows for _, rows in of_one_scene(kept, name)]
    return pa.concat_tables(found) if found else table.slice(0, 0)


def _by_trial(table: pa.Table) -> dict[str, pa.Table]:
    """Trial -> its rows, in their original order."""
    places = pc.sort_indices(table, [("trial", "ascending")])  # a stable sort
    table = table.take(places).combine_chunks()
    counts = pc.value_counts(table.column("trial")).to_pylist()  # in order of appearance
    ends = itertools.accumulate(count["counts"] for count in counts)
    return {
        count["values"]: table.slice(end - count["counts"], count["counts"])
        for count, end in zip(counts, ends, strict=True)
    }


def check_trial(table: pa.Table, trial: str) -> None:
    """Check that the rows are episodes of one setting, with all values within bounds.

    Raises:
        Unreadable: names the first fault.
    """
    names = set(table.column("trial").to_pylist())
    if names != {trial} or not _NAME.fullmatch(trial):
        raise Unreadable("its rows are of another trial")
    for column in ("attack", "status"):
        for value in set(table.column(column).to_pylist()):
            if not _NAME.fullmatch(value) or (column == "status" and value not in STATUSES):
                raise Unreadable(f"{column} = {visible_line(value, 40)!r} is not a known value")
    check_bounds(table)
    _check_setting(table)


def needed_to_check(name: str) -> bool:
    """Whether :func:`check_trial` and :func:`of_one_scene` need a column, whatever the caller reads."""
    return name in _CHECKED or name.startswith(("defense.", "scene."))


def _check_setting(table: pa.Table) -> None:
    """Check that the rows have one defense, one value of each knob, and one split of the data per seed.

    This version's configuration of the defense must accept the values.
    """
    defenses = set(table.column("defense").to_pylist())
    knobs: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        if name.startswith(("defense.", "scene.")) and column.null_count < len(column):
            values = pc.unique(column.drop_null()).to_pylist()
            if len(values) > 1 and name != "scene.seed":
                raise Unreadable(f"its rows have {len(values)} values of {name}")
            if name.startswith("defense."):
                knobs[name.removeprefix("defense.")] = values[0]
    if "split" in table.column_names:
        splits = table.group_by("seed").aggregate([("split", "count_distinct")])
        if (pc.max(splits.column("split_count_distinct")).as_py() or 0) > 1:
            raise Unreadable("its rows have several splits of a seed")
    if len(defenses) > 1:
        raise Unreadable("its rows are of several defenses")
    config_from(defenses.pop(), knobs)


def of_one_scene(trials: Iterable[tuple[str, pa.Table]], where: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield the trials that have the first trial's data and sizes; others cannot be compared with them.

    The others are left out with a warning.

    Args:
        trials: names and rows, anchors first. where: the study or file, for warnings.
    """
    meant: dict[str, Any] = {}
    for trial, table in trials:
        scene = _scene(table)
        other = [k for k, v in scene.items() if meant.get(k, v) != v]
        if other:
            leave_out(f"{where}, trial {trial}", f"another scene than the study's ({', '.join(other)})")
        else:
            meant = scene | meant
            yield trial, table


def _scene(table: pa.Table) -> dict[str, Any]:
    """Data and sizes that a trial's rows name, without missing values and paths."""
    found = {}
    for name in table.column_names:
        if name in ("dataset", "auxiliary") or (name.startswith("scene.") and name not in _MAY_DIFFER):
            values = table.column(name).drop_null()
            if len(values):
                value = values[0].as_py()
                found[name] = value.partition(":")[0] if name == "dataset" else value
    if "split" in table.column_names:  # which images a seed uses
        pairs = table.select(["seed", "split"]).group_by(["seed", "split"]).aggregate([]).to_pylist()
        found |= {f"split of seed {pair['seed']}": pair["split"] for pair in pairs if pair["split"]}
    return found
