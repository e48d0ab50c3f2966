"""Records for the tests of the validity checks: one sound suite beside its anchors."""

from __future__ import annotations

from typing import Any

from mipoison.metrics import CheckContext

CELL = {"dataset": "digits", "auxiliary": "same", "split": "f1", "seed": 0, "victim": "cnn", "status": "ok"}


def record(
    defense: str = "lpa", attack: str = "passive", error: float | None = 0.028, **more: Any
) -> dict[str, Any]:
    budget = {"defense.budget": 0.01} if defense == "lpa" else {}
    return {
        **CELL,
        "defense": defense,
        "attack": attack,
        "reconstruction_error": error,
        "reconstruction_skill": None if error is None else 1 - error / 0.0474,
        "confidence_distortion": 0.0 if defense == "none" else 0.01,
        "label_agreement": 1.0,
        "label_recovery": 1.0,
        "repeat_query_distance": 0.0,
        "queries": 1000,
        "attack_set_distortion": 0.0 if defense == "none" else 0.01,
        "clean_reconstruction_error": error if defense == "none" or error is None else 0.0242,
        "evaluator_accuracy": 0.97,
        "model_accuracy": 0.98,
        "attack_accuracy": 1.0,
        "open_accuracy": 0.99,
        **budget,
        **more,
    }


UNDEFENDED = [record("none", "passive", 0.0201), record("none", "restorer", 0.0205)]
LABEL_ONLY = [record("label-only", "passive", 0.0263), record("label-only", "knn", 0.0290)]
SUITE = [record(attack="restorer", error=0.0262), record(attack="passive", error=0.0264)]


def context(suite: list[dict[str, Any]] = SUITE) -> CheckContext:
    return CheckContext(tuple(suite), tuple(UNDEFENDED), tuple(LABEL_ONLY))


def raised(checked: dict[str, bool | None]) -> set[str]:
    return {name.removeprefix("check.") for name, value in checked.items() if value}
