"""A record that is complete."""

from __future__ import annotations

from typing import Any


def row(**more: Any) -> dict[str, Any]:
    return {
        "episode_id": "0123456789abcdef", "seed": 0, "defense": "noise", "attack": "passive", "status": "ok",
        "defense.budget": 0.01, "defense.randomness": "keyed", "scene.seed": 0, "model_accuracy": 0.9,
        "check.below_label_only": False, "queries": 100,
    } | more  # fmt: skip
