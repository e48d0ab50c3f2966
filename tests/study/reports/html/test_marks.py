"""The key tells defenses apart by colour and by shape; axes hold every value."""

from __future__ import annotations

import pytest

from study.reports.html.marks import distortion_axis, key_of, linear_axis, share_axis

ROWS = [
    {"defense": name, "distortion": x, "excess": y, "certified": None}
    for name, x, y in (
        ("undefended", 0.0, 0.3),
        ("noise", 0.002, 0.1),
        ("noise", 0.03, 0.0),
        ("lpa", 0.01, 0.2),
    )
]


def test_no_two_defenses_look_alike() -> None:
    key = key_of(ROWS)
    assert [(d["name"], d["count"]) for d in key] == [("lpa", 1), ("noise", 2), ("undefended", 1)]
    for field in ("colour", "shape", "sign"):
        assert len({d[field] for d in key}) == len(key)
    assert all(d["colour"].startswith("var(--") for d in key)  # the page's own, in dark and light


def test_axes_hold_every_value() -> None:
    scale = distortion_axis(ROWS)["scale"].to_dict()
    assert scale["type"] == "symlog"  # has a place for zero
    assert scale["constant"] == pytest.approx(0.001)
    assert scale["domain"][0] < 0 < 0.03 < scale["domain"][1]
    low, high = share_axis(ROWS, ["excess", "certified"], "t")["scale"].to_dict()["domain"]
    assert low < 0 < 0.3 < high <= 1
    low, high = linear_axis("error", "t", [0.2, 0.4])["scale"].to_dict()["domain"]
    assert low < 0.2 < 0.4 < high
