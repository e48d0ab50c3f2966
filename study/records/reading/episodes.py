"""Episodes of a study: the rows of a trial's file, and of a compact copy, trial by trial."""

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
_TOLD = ("episode_id", "study", "trial", "seed", "attempt", "defense", "attack", "status",
         "dataset", "auxiliary")  # fmt: skip
_ALONE = ("scene.seed", "scene.victim", "scene.victim_state", "scene.dataset")
"""Of a scene, what its trials may differ in: the seed, and where the same files lie."""


def episodes_of(data: bytes, trial: str, schema: pa.Schema) -> pa.Table:
    """A trial's file.

    Args:
        schema: the columns that are read, judged and returned, :func:`judged` ones among them.

    Raises:
        Unreadable: cut off, altered, of another trial, not of our schema, or of values that no trial has.
    """
    table = parquet(data, frozenset(schema.names))
    if not table.schema.equals(schema):  # of an older version, or not ours
        table = columns_of(table, schema)
    check_trial(table, trial)
    have = set(table.column_names)  # asked for each column it would take longer than reading the file
    for field in schema:  # of an older version: nothing was measured
        if field.name not in have:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def compact_of(data: bytes, schema: pa.Schema, name: str) -> pa.Table:
    """``episodes.parquet`` of a compact copy; trials that are none are left out, and said.

    Args:
        name: of the file, to say it.

    Raises:
        Unreadable: not of our schema.
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
    """Trial -> its rows, in their order."""
    places = pc.sort_indices(table, [("trial", "ascending")])  # a stable sort
    table = table.take(places).combine_chunks()
    counts = pc.value_counts(table.column("trial")).to_pylist()  # in order of appearance
    ends = itertools.accumulate(count["counts"] for count in counts)
    return {
        count["values"]: table.slice(end - count["counts"], count["counts"])
        for count, end in zip(counts, ends, strict=True)
    }


def check_trial(table: pa.Table, trial: str) -> None:
    """Whether the rows are episodes of one setting, with values that everything behind can work with.

    Raises:
        Unreadable: the first fault.
    """
    names = set(table.column("trial").to_pylist())
    if names != {trial} or not _NAME.fullmatch(trial):
        raise Unreadable("its rows are not this trial's")
    for column in ("attack", "status"):
        for value in set(table.column(column).to_pylist()):
            if not _NAME.fullmatch(value) or (column == "status" and value not in STATUSES):
                raise Unreadable(f"{column} = {visible_line(value, 40)!r} is none")
    check_bounds(table)
    _check_setting(table)


def judged(name: str) -> bool:
    """Whether a column is needed to tell if rows are a trial of the study, whatever else is read."""
    return name in _TOLD or name.startswith(("defense.", "scene."))


def _check_setting(table: pa.Table) -> None:
    """One defense, one value of each knob, and one that this version's configurations accept; one split a
    seed."""
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
    """The trials whose data and sizes are those of the first: others cannot be compared, and are left out.

    Args:
        trials: names and rows, the anchors first. where: the study or file, to say it.
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
    """What a trial's rows say of data and sizes; without what is missing, and without paths."""
    found = {}
    for name in table.column_names:
        if name in ("dataset", "auxiliary") or (name.startswith("scene.") and name not in _ALONE):
            values = table.column(name).drop_null()
            if len(values):
                value = values[0].as_py()
                found[name] = value.partition(":")[0] if name == "dataset" else value
    if "split" in table.column_names:  # the images of a seed, whichever file the columns are from
        pairs = table.select(["seed", "split"]).group_by(["seed", "split"]).aggregate([]).to_pylist()
        found |= {f"split of seed {pair['seed']}": pair["split"] for pair in pairs if pair["split"]}
    return found
