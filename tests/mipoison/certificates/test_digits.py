"""The certificates of digits, as first measured by another program."""

from __future__ import annotations

from pathlib import Path

import pytest

from mipoison.defenses import DEFENSES
from mipoison.deployment import deploy, release
from mipoison.scene import prepare, scaled

MEASURED = {
    ("rounding", 3): (0.581, 0.415),
    ("rounding", 2): (0.213, 0.119),
    ("rounding", 1): (0.019, 0.022),
    ("label-only", None): (0.0, 0.014),
}
"""Certified excess and identification on 361 private training images, mean of three seeds."""


@pytest.mark.slow
def test_certificates_of_digits(tmp_path: Path) -> None:
    scenes = [prepare(scaled("digits", "quick", seed=seed), tmp_path) for seed in range(3)]
    for (name, decimals), (excess, identification) in MEASURED.items():
        config = DEFENSES[name].from_flat({} if decimals is None else {"decimals": decimals})
        columns = [release(deploy(scene, name, config)).columns for scene in scenes]
        assert {c["pool_size"] for c in columns} == {361}
        assert sum(c["certified_excess"] for c in columns) / 3 == pytest.approx(excess, abs=0.003)
        assert sum(c["certified_identification"] for c in columns) / 3 == pytest.approx(
            identification, abs=0.002
        )
