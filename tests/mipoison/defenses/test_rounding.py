"""Rounding by steps: any grid, one identity for a grid, and records from before there were steps."""

import json
import math
from collections import Counter

import pytest

from mipoison.config import ConfigError
from mipoison.defenses.rounding import Rounding, RoundingConfig
from mipoison.simplex import label_of
from tests.mipoison.defenses.test_contract import ULP, pictures, protect, slow_apportion, vectors


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 50, 999])
@pytest.mark.parametrize("k", [2, 5, 40])
def test_any_whole_number_of_steps(steps: int, k: int) -> None:
    c, x = vectors(60, k), pictures(60)
    z = protect(Rounding(RoundingConfig(steps=steps)), c, x)
    assert (z.double() * steps).round().long().tolist() == [
        slow_apportion(row, steps) for row in c.double().tolist()
    ]
    assert bool((label_of(z) == label_of(c)).all())
    assert float((z.double() - c.double()).abs().max()) < 1 / steps + 2 * ULP


@pytest.mark.parametrize("decimals", range(7))
def test_decimals_are_powers_of_ten_and_one_setting(decimals: int) -> None:
    old, new = RoundingConfig(decimals=decimals), RoundingConfig(steps=10**decimals)
    assert old == new
    assert (old.digest(), old.flat()) == (new.digest(), new.flat())
    assert new.units == 10**decimals
    c, x = vectors(200), pictures(200)
    assert protect(old.make(), c, x).equal(protect(new.make(), c, x))


def test_settings_of_older_records_keep_their_identity() -> None:
    """What version 0.1.0 wrote for one and two decimals; two were the default."""
    assert RoundingConfig().flat("defense") == {"defense.decimals": 2}
    assert RoundingConfig(decimals=1).flat() == {"decimals": 1}
    assert RoundingConfig().digest() == "7abc1accd29a"
    assert RoundingConfig(decimals=1).digest() == "be85b91d8410"
    assert RoundingConfig.recorded({"decimals": 3}) == RoundingConfig(steps=1000)


@pytest.mark.parametrize("steps", [1, 5, 20, 100, 1000])
def test_flat_keys_and_knobs_round_trip(steps: int) -> None:
    config = RoundingConfig(steps=steps)
    assert RoundingConfig.recorded(json.loads(json.dumps(config.flat()))) == config
    column = {name: value for name, value in config.flat().items() if value is not None}  # as a table has it
    assert RoundingConfig.recorded(column) == config
    assert RoundingConfig(**config.knobs()) == config  # type: ignore[arg-type]
    assert config.knobs() == {"steps": steps}


def test_different_grids_differ_in_digest() -> None:
    digests = Counter(RoundingConfig(steps=s).digest() for s in range(1, 1001))
    assert max(digests.values()) == 1


def test_two_grids_or_none_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"steps = 20 and decimals = 3 .*give one of them"):
        RoundingConfig(steps=20, decimals=3)
    with pytest.raises(ConfigError, match="decimals = None: must be between 0 and 6 where steps is None"):
        RoundingConfig(decimals=None)
    for steps in (0, -1, 10**6 + 1):
        with pytest.raises(ConfigError, match=f"steps = {steps}: must be between 1 and 1,000,000"):
            RoundingConfig(steps=steps)
    assert RoundingConfig(steps=1000, decimals=3) == RoundingConfig(decimals=3)


def test_a_step_moves_a_score_by_less_than_itself_and_the_vector_by_its_share() -> None:
    c, x = vectors(300), pictures(300)
    for steps in (5, 50):
        moved = (protect(RoundingConfig(steps=steps).make(), c, x).double() - c.double()).norm(dim=1)
        assert float(moved.max()) < math.sqrt(5) / steps
