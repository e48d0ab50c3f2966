"""The contract of every entry of ATTACKS; then each option changes what it is supposed to change."""

import types
from collections.abc import Callable

import pytest

from mipoison.attacks import ATTACKS, PASSIVE
from mipoison.attacks.decoder import DecoderConfig
from mipoison.attacks.sizes import DEFAULT_SIZES
from mipoison.contract import ATTACKER_CHECKS, AttackerCase
from mipoison.contract.attackers import reachable
from mipoison.defenses import DEFENSES
from mipoison.deployment import deploy
from mipoison.scene import Scene
from mipoison.service import DefendedService

DRAWS_NOTHING = ("class-mean",)
"""Attackers that answer the same for every seed; one image is enough for them."""
MAY_DRAW_NOTHING = ("aligned", "kernel", "mixtures", "trees")
"""Attackers whose draws may not show on few images: ``kernel`` draws only from more images than it can use,
and ``trees`` keeps no forest that is worse out of bag than the mean image of the label."""


# ------------------------------------------------------------------------------------------- the contract


@pytest.fixture(scope="module")
def cases(tiny_scene: Scene) -> dict[str, AttackerCase]:
    """Every attacker against lightly noised answers of the tiny scene's own service."""
    return {
        name: AttackerCase(
            name,
            config,
            tiny_scene,
            draws_nothing=name in DRAWS_NOTHING,
            may_draw_nothing=name in MAY_DRAW_NOTHING,
        )
        for name, config in ATTACKS.items()
    }


@pytest.mark.parametrize("check", ATTACKER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ATTACKS)
def test_contract(name: str, check: Callable[[AttackerCase], None], cases: dict[str, AttackerCase]) -> None:
    check(cases[name])


@pytest.mark.parametrize("name", ATTACKS)
def test_is_built_without_a_scene_with_stated_sizes(name: str) -> None:
    config = ATTACKS[name]
    open_sizes = [k for k in DEFAULT_SIZES if getattr(config, k, 0) is None]
    if not open_sizes:
        pytest.skip("has sizes of its own")
    built = config.make().config
    assert {k: getattr(built, k) for k in open_sizes} == {k: DEFAULT_SIZES[k] for k in open_sizes}


def test_the_walk_would_find_the_victim(tiny_scene: Scene) -> None:
    """The test above can fail: a closure or a bound method does not hide a model from it."""
    service = deploy(tiny_scene, "none", DEFENSES["none"]()).service
    holder = types.SimpleNamespace(inner=[{"f": service.answer}])
    assert any(isinstance(t, DefendedService) for t in reachable(holder))
    assert any(t is tiny_scene.victim for t in reachable(holder))


def test_the_passive_attacker_is_in_the_suite() -> None:
    assert ATTACKS[PASSIVE] == DecoderConfig()
