"""The schema of episode records, and conversions of records to Arrow tables and data frames."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mipoison.attacks import ATTACKS
from mipoison.certificates import COLUMNS
from mipoison.config import Config
from mipoison.defenses import DEFENSES
from mipoison.metrics import CHECKS, half_samples
from mipoison.metrics.distinct import DISTINCT_COLUMNS
from mipoison.metrics.estimated_limit import ESTIMATED_LIMIT_COLUMNS
from mipoison.metrics.identification import IDENTIFICATION_COLUMNS
from mipoison.metrics.leakage import PERCENTILE_COLUMNS
from mipoison.metrics.ranking import RANKING_COLUMNS
from mipoison.metrics.scoring import SCORING_COLUMNS
from mipoison.metrics.written_image import WRITTEN_COLUMNS
from mipoison.scene import SceneConfig
from study.records.gathering import gather

if TYPE_CHECKING:
    import pandas as pd

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
    "certificate_none",
]
_WHOLE = [
    "seed",
    "attempt",
    "queries",
    "n_classes",
    "stacked_members",
    "smallest_cell",
    "smallest_cell_test",
    "pool_size",
    "pool_size_test",
    *DISTINCT_COLUMNS,
]
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
    "hidden_channel_p",
    "poison_ms_per_sample",
    "inference_ms_per_sample",
    "seconds_prepare",
    "seconds_poison",
    "seconds_attack",
    "seconds_evaluate",
    "peak_memory_mb",
    *PERCENTILE_COLUMNS,
    *half_samples.COLUMNS,
    *half_samples.TEST_COLUMNS,
    *(name + suffix for suffix in ("", "_test") for name in COLUMNS if name + suffix not in _WHOLE),
    *RANKING_COLUMNS,
    *SCORING_COLUMNS,
    *ESTIMATED_LIMIT_COLUMNS,
    *IDENTIFICATION_COLUMNS,
    *WRITTEN_COLUMNS,
]
_TRUTH = ["screened", "test_may_be_seen"]
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
    """All columns with their types, including the knobs of every defense and attacker, plug-ins included.

    Columns that identify an episode must have a value; all others are nullable.
    """
    return _schema(tuple(dict.fromkeys(DEFENSES.values())), tuple({type(c): None for c in ATTACKS.values()}))


@functools.lru_cache(maxsize=16)
def _schema(defenses: tuple[type[Config], ...], attacks: tuple[type[Config], ...]) -> pa.Schema:
    columns: dict[str, pa.DataType] = {name: pa.string() for name in _TEXT}
    columns |= {name: pa.int64() for name in _WHOLE}
    columns |= {name: pa.float64() for name in _REAL}
    columns |= {name: pa.bool_() for name in _TRUTH}
    columns |= {f"check.{name}": pa.bool_() for name in CHECKS}
    columns |= _config_fields("scene", [SceneConfig])
    columns |= _config_fields("defense", defenses)
    columns |= _config_fields("attack", attacks)
    required = {"episode_id", "study", "trial", "seed", "attempt", "defense", "attack", "status"}
    return pa.schema([pa.field(name, kind, nullable=name not in required) for name, kind in columns.items()])


def part_of_schema(wanted: Callable[[str], bool]) -> pa.Schema:
    """The schema reduced to the columns whose names are wanted."""
    return pa.schema([field for field in episode_schema() if wanted(field.name)])


def to_table(records: list[dict[str, Any]]) -> pa.Table:
    """Convert records to a typed table.

    Raises:
        KeyError: a record has a column that the schema lacks (nothing is dropped silently).
        TypeError: a float stands in a column of integers.
    """
    schema = episode_schema()
    for record in records:
        unknown = sorted(set(record) - set(schema.names))
        if unknown:
            raise KeyError(f"records have columns that the schema lacks: {', '.join(unknown)}")
        for field in schema:
            if pa.types.is_integer(field.type) and isinstance(record.get(field.name), float):
                raise TypeError(f"{field.name} = {record[field.name]!r}: the column holds integers")
    return pa.Table.from_pylist([{n: r.get(n) for n in schema.names} for r in records], schema=schema)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert a table of records to a data frame, sorted by trial, seed and attacker.

    Columns whose NumPy type has no missing value get pandas' nullable type.
    """
    import pandas as pd

    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    table = gather([table], table.schema)
    frame = table.to_pandas(types_mapper=nullable.get, split_blocks=True)
    del table
    pa.default_memory_pool().release_unused()  # otherwise Arrow keeps the memory for itself
    return frame
