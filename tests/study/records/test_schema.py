"""The schema holds every column with its type; what has no place in it is refused by name."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from mipoison.attacks import ATTACKS
from mipoison.config import Config
from mipoison.defenses import DEFENSES
from mipoison.metrics import CHECKS
from mipoison.scene import SceneConfig
from study.records.schema import episode_schema, to_table
from tests.study.records.helpers import row
from tests.study.records.test_store import REQUIRED

TEXT = [
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

NUMBERS = [
    "model_accuracy", "protected_accuracy", "confidence_distortion", "label_agreement", "kl", "ece",
    "rank_correlation", "attack_accuracy", "cycle_accuracy", "open_accuracy", "reconstruction_error",
    "reconstruction_error_paper_scale", "reconstruction_skill", "excess_leakage", "ssim",
    "clean_attack_accuracy", "clean_reconstruction_error", "alignment_before", "alignment_after",
    "poison_ms_per_sample", "inference_ms_per_sample", "seconds_prepare", "seconds_poison",
    "seconds_attack", "seconds_evaluate", "peak_memory_mb",
]  # fmt: skip

ARROW = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


# ---------------------------------------------------------------- the schema


def test_the_schema_has_every_column_with_its_type() -> None:
    schema = episode_schema()
    assert {n: schema.field(n).type for n in TEXT} == dict.fromkeys(TEXT, pa.string())
    assert {n: schema.field(n).type for n in NUMBERS} == dict.fromkeys(NUMBERS, pa.float64())
    assert schema.field("seed").type == schema.field("attempt").type == pa.int64()
    for name in CHECKS:
        assert schema.field(f"check.{name}").type == pa.bool_()
    assert len(set(schema.names)) == len(schema.names)
    assert {f.name for f in schema if not f.nullable} == REQUIRED


@pytest.mark.parametrize(
    ("prefix", "cls"),
    [("scene", SceneConfig)]
    + [("defense", cls) for cls in DEFENSES.values()]
    + [("attack", cls) for cls in {type(c): None for c in ATTACKS.values()}],
)
def test_every_knob_has_a_typed_column(prefix: str, cls: type[Config]) -> None:
    schema = episode_schema()
    for name, (kind, _) in cls.field_kinds().items():
        assert schema.field(f"{prefix}.{name}").type == ARROW[kind]


def test_a_column_without_a_place_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match=r"defense\.bugdet, nonsense"):
        to_table([row(), row(**{"nonsense": 1, "defense.bugdet": 0.1})])


@pytest.mark.parametrize(
    "wrong", [{"model_accuracy": "high"}, {"seed": "one"}, {"status": 1}, {"check.below_label_only": "no"}]
)
def test_a_value_of_the_wrong_type_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        to_table([row(**wrong)])
