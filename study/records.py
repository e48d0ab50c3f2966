"""Episode records: one explicit schema, one Parquet file per trial and attempt, read back as a data frame.

Parquet is the record of truth: frontier, report and a resumed study are computed from these files alone.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mipoison.attacks import ATTACKS
from mipoison.config import Config, ConfigError
from mipoison.defenses import DEFENSES
from mipoison.metrics import CHECKS
from mipoison.metrics.leakage import PERCENTILE_COLUMNS
from mipoison.scene import SceneConfig
from mipoison.storage import Storage

_TEXT = [
    "episode_id",
    "study",
    "trial",
    "dataset",
    "auxiliary",
    "split",
    "victim",
    "defense",
    "attack",
    "status",
    "error",
    "device",
    "versions",
]
_WHOLE = ["seed", "attempt", "queries", "n_classes"]
_REAL = [
    "model_accuracy",
    "protected_accuracy",
    "confidence_distortion",
    "label_agreement",
    "label_recovery",
    "kl",
    "ece",
    "rank_correlation",
    "attack_set_distortion",
    "attack_set_label_agreement",
    "attack_accuracy",
    "attack_accuracy_test",
    "cycle_accuracy",
    "open_accuracy",
    "evaluator_accuracy",
    "reconstruction_error",
    "reconstruction_error_test",
    "reconstruction_error_paper_scale",
    "reconstruction_skill",
    "mean_image_error",
    "excess_leakage",
    "excess_attack_accuracy",
    "ssim",
    "clean_attack_accuracy",
    "clean_reconstruction_error",
    "alignment_before",
    "alignment_after",
    "repeat_query_distance",
    "poison_ms_per_sample",
    "inference_ms_per_sample",
    "seconds_prepare",
    "seconds_poison",
    "seconds_attack",
    "seconds_evaluate",
    "peak_memory_mb",
    *PERCENTILE_COLUMNS,
]
_ARROW = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def _config_fields(prefix: str, classes: Iterable[type[Config]]) -> dict[str, pa.DataType]:
    fields: dict[str, pa.DataType] = {}
    for cls in classes:
        for name, (kind, _) in cls.field_kinds().items():
            column = f"{prefix}.{name}"
            if fields.setdefault(column, _ARROW[kind]) != _ARROW[kind]:
                raise TypeError(
                    f"column {column} is {fields[column]} elsewhere and {_ARROW[kind]} in {cls.__name__}"
                )
    return fields


def episode_schema() -> pa.Schema:
    """Every column with its type, knobs of every defense and attacker included. All but ids are nullable."""
    columns: dict[str, pa.DataType] = {name: pa.string() for name in _TEXT}
    columns |= {name: pa.int64() for name in _WHOLE}
    columns |= {name: pa.float64() for name in _REAL}
    columns |= {f"check.{name}": pa.bool_() for name in CHECKS}
    columns |= _config_fields("scene", [SceneConfig])
    columns |= _config_fields("defense", DEFENSES.values())
    columns |= _config_fields("attack", {type(c): None for c in ATTACKS.values()})
    required = {"episode_id", "study", "trial", "seed", "attempt", "defense", "attack", "status"}
    return pa.schema([pa.field(name, kind, nullable=name not in required) for name, kind in columns.items()])


def to_table(records: list[dict[str, Any]]) -> pa.Table:
    """Records as a typed table.

    Raises:
        KeyError: a record has a column that the schema does not know (nothing is dropped silently).
    """
    schema = episode_schema()
    for record in records:
        unknown = sorted(set(record) - set(schema.names))
        if unknown:
            raise KeyError(f"columns without a place in the schema: {', '.join(unknown)}")
        for field in schema:
            if pa.types.is_integer(field.type) and isinstance(record.get(field.name), float):
                raise TypeError(f"{field.name} = {record[field.name]!r}: a whole number is meant")
    return pa.Table.from_pylist([{n: r.get(n) for n in schema.names} for r in records], schema=schema)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Typed records as a data frame, in order of trial, seed and attacker."""
    frame = table.to_pandas(types_mapper=_NULLABLE.get)
    return frame.sort_values(["trial", "seed", "attack"], kind="stable", ignore_index=True)


def check_name(name: str, what: str = "study") -> str:
    """A name usable as a folder: letters, digits, dot, dash, underscore; ConfigError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            f"{what} name {name!r}: "
            "use 1 to 100 letters, digits, '.', '-' or '_', beginning with one of the first two"
        )
    return name


class Records:
    """The files of one study below a storage root.

    ``<study>/episodes/<trial>.a<attempt>.parquet`` (finished trials), ``<study>/trials/<trial>.json`` (what
    was started), ``<study>/study.json`` (the settings).
    """

    def __init__(self, storage: Storage, study: str) -> None:
        self.storage, self.study = storage, check_name(study)

    def write_trial(self, trial: str, attempt: int, records: list[dict[str, Any]]) -> None:
        """Write a finished trial, all its episodes at once."""
        rows = [r | {"study": self.study, "trial": trial, "attempt": attempt} for r in records]
        sink = io.BytesIO()
        pq.write_table(to_table(rows), sink)
        self.storage.write(
            f"{self.study}/episodes/{check_name(trial, 'trial')}.a{attempt}.parquet", sink.getvalue()
        )

    def finished(self) -> dict[str, str]:
        """Trial -> file name of its latest attempt."""
        found: dict[str, tuple[int, str]] = {}
        for name in self.storage.names(f"{self.study}/episodes"):
            match = re.fullmatch(r".*/([^/]+)\.a(\d+)\.parquet", name)
            if match:
                found[match[1]] = max(found.get(match[1], (-1, "")), (int(match[2]), name))
        return {trial: name for trial, (_, name) in found.items()}

    def read_trial(self, trial: str) -> list[dict[str, Any]]:
        """The records of one finished trial; empty if there is none."""
        name = self.finished().get(trial)
        data = self.storage.read(name) if name else None
        return [] if data is None else pq.read_table(io.BytesIO(data)).to_pylist()

    def read(self) -> pd.DataFrame:
        """All finished episodes, one attempt a trial, in order of trial, seed and attacker."""
        tables = []
        for name in self.finished().values():
            data = self.storage.read(name)
            if data is not None:
                tables.append(pq.read_table(io.BytesIO(data)))
        table = (
            pa.concat_tables(tables, promote_options="default") if tables else episode_schema().empty_table()
        )
        return to_frame(table)

    def write_json(self, name: str, value: Any) -> None:
        """Write ``<study>/<name>`` as JSON."""
        self.storage.write(f"{self.study}/{name}", json.dumps(value, indent=2, sort_keys=True).encode())

    def read_json(self, name: str) -> Any | None:
        """Read ``<study>/<name>``, None if absent."""
        data = self.storage.read(f"{self.study}/{name}")
        return None if data is None else json.loads(data)

    def started(self) -> dict[str, Mapping[str, Any]]:
        """Trial -> what was started (defense and knobs), finished or not."""
        out = {}
        for name in self.storage.names(f"{self.study}/trials"):
            data = self.storage.read(name)
            if data is not None:
                out[name.rsplit("/", 1)[1].removesuffix(".json")] = json.loads(data)
        return out


_NULLABLE: dict[pa.DataType, Any] = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
"""Nullable pandas types where NumPy has no missing value; floats and strings keep theirs."""
