"""The search's seeds against fresh ones: only what the same attackers measured is compared."""

from __future__ import annotations

import pandas as pd

from study.analysis.selection_bias import BIAS, selection_bias
from tests.study.analysis.helpers import record, table


def setting(
    trial: str, errors: dict[str, float], seeds: tuple[int, ...], **more: object
) -> list[dict[str, object]]:
    return [
        record(trial, "noise", attack, seed, error=error + 0.0001 * seed) | more
        for attack, error in errors.items() for seed in seeds
    ]  # fmt: skip


def test_a_setting_that_was_only_screened_is_not_compared_with_all_attackers() -> None:
    errors = {"ridge": 0.02, "passive": 0.01}
    whole = setting("a", errors, (0, 1))
    screened = [
        row | ({} if row["attack"] == "ridge" else {"status": "cut", "reconstruction_error": None})
        for row in setting("b", errors, (0, 1), screened=True)
    ]
    fresh = table([*setting("a", errors, (2, 3)), *setting("b", errors, (2, 3))])
    bias = selection_bias(table([*whole, *screened]), fresh)
    assert bias["trial"].tolist() == ["a"]
    row = bias.iloc[0]
    assert abs(row["worst_reconstruction_error"] - 0.01005) < 1e-12
    assert abs(row["worst_reconstruction_error_fresh"] - 0.01025) < 1e-12
    assert {f"{name}{end}" for name in BIAS for end in ("", "_fresh")} <= set(bias)


def test_what_was_not_measured_again_is_left_out() -> None:
    errors = {"ridge": 0.02}
    both = table([*setting("a", errors, (0,)), *setting("b", errors, (0,))])
    bias = selection_bias(both, table(setting("b", errors, (1,))))
    assert bias["trial"].tolist() == ["b"]
    assert isinstance(bias, pd.DataFrame)
