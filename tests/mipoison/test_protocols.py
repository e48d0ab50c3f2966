"""The interfaces between defender, attacker and API."""

import pytest

from mipoison.defenses import DEFENSES
from mipoison.deployment import deploy
from mipoison.scene import Scene
from mipoison.service import MeteredOracle
from tests.mipoison.attacks.helpers import BLIND, KNOWN


def test_the_oracle_offers_three_things(tiny_scene: Scene) -> None:
    oracle = MeteredOracle(deploy(tiny_scene, "none", DEFENSES["none"]()).service.answer, 5)
    assert sorted(n for n in dir(oracle) if not n.startswith("_")) == ["n_classes", "queries", "query"]
    assert not hasattr(oracle, "__dict__")
    for name in ("n_classes", "queries", "victim"):
        with pytest.raises(AttributeError):
            setattr(oracle, name, 0)


def test_threat_model_prints_itself() -> None:
    assert "noise" in str(KNOWN)
    assert "0.01" in str(KNOWN)
    assert "nothing of the defense" in str(BLIND)
    assert "(1, 16, 16)" in str(BLIND)
