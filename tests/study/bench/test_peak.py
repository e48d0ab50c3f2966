"""The share of the peak is a ratio of two measured speeds, from operations that torch counts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from study.bench import peak
from study.bench.peak import peak_share
from study.bench.subject import Size, fitted


def test_the_share_is_the_ratio_of_the_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(cases: Mapping[str, object], **how: object) -> dict[str, tuple[float, int]]:
        return {name: (0.5 if "poison" in name else 0.25, 3) for name in cases}

    monkeypatch.setattr(peak, "interleaved", timed)
    poison, product = peak_share(quick=True)
    assert product.value == pytest.approx(2 * 512**3 / 0.25 / 1e9)
    assert f"{poison.value / product.value:.1%}" in poison.note
    # A round passes through the decoder more than once, and each pass takes two operations a weight at least.
    lpa = fitted("lpa", Size(width=8), rounds=1)
    macs = sum(w.numel() for w in lpa.substitute.parameters() if w.ndim == 4)  # type: ignore[attr-defined]
    assert poison.value * 1e9 * 0.5 > 2 * 32 * macs
    assert poison.repeats == product.repeats == 3
