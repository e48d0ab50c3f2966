"""What the tests of trials share: a small trial, and records without what two runs cannot share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mipoison.attacks.decoder import Decoder
from mipoison.scene import SceneConfig
from study.records.constraints import Constraints
from study.trial.spec import TrialResult, TrialSpec

SEEDS = (0, 1)
Record = dict[str, Any]
DEFENDED: dict[str, dict[str, Any]] = {
    "noise": {"budget": 0.05, "randomness": "fresh"},
    "lpa": {"budget": 0.05, "rounds": 2},
}


def scene(seed: int, **changes: int) -> dict[str, Any]:
    """A flat scene that is trained in a second."""
    sizes = dict(
        limit=150, victim_width=8, victim_hidden=16, victim_steps=30, decoder_width=4, decoder_steps=20
    )
    return SceneConfig(seed=seed, **sizes | changes).flat()


def spec_of(
    root: Path, defense: str = "noise", knobs: dict[str, Any] | None = None, **more: Any
) -> TrialSpec:
    values: dict[str, Any] = dict(
        study="s",
        constraints=Constraints().flat(),
        trial="t0001-x",
        attempt=0,
        defense=defense,
        knobs=knobs or {},
        attackers=("passive", "label-only"),
        scenes=tuple(scene(s) for s in SEEDS),
        root=str(root),
        data_root=None,
    )
    return TrialSpec(**values | more)


def measured(records: list[Record]) -> list[Record]:
    """Records without what two runs cannot share."""
    cost = ("seconds_", "peak_memory_mb")
    return [
        {k: v for k, v in r.items() if not k.startswith(cost) and not k.endswith("_ms_per_sample")}
        for r in records
    ]


def expect_same(one: TrialResult, other: TrialResult) -> None:
    assert measured(one.records) == measured(other.records)
    assert set(one.pictures) == set(other.pictures)
    for name, picture in one.pictures.items():
        np.testing.assert_array_equal(picture, other.pictures[name])


# ---------------------------------------------------------------- failures


def break_attack(monkeypatch: pytest.MonkeyPatch, view: str, error: BaseException) -> None:
    prepare = Decoder.prepare

    def fail(self: Decoder, *args: Any, **more: Any) -> Any:
        if self.config.view == view:
            raise error
        return prepare(self, *args, **more)

    monkeypatch.setattr(Decoder, "prepare", fail)
