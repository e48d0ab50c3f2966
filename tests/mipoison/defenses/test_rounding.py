"""Rounding against exact fractions: any grid, one identity for a grid, records without steps."""

import json
import math
from collections import Counter

import pytest
import torch

from mipoison.config import ConfigError
from mipoison.defenses.label_only import LabelOnly
from mipoison.defenses.rounding import Rounding, RoundingConfig, apportion
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import ULP, pictures, protect, vectors


def slow_apportion(row: list[float], units: int) -> list[int]:
    """Largest remainders (Hamilton), in exact fractions."""
    from fractions import Fraction

    exact = [Fraction(v) for v in row]
    quota = [v * units / sum(exact) for v in exact]
    whole = [math.floor(q) for q in quota]
    order = sorted(range(len(row)), key=lambda j: (-(quota[j] - whole[j]), j))
    for j in order[: units - sum(whole)]:
        whole[j] += 1
    return whole


@pytest.mark.parametrize("units", [1, 10, 100, 1000])
@pytest.mark.parametrize("k", [2, 5, 40])
def test_apportion_matches_exact_fractions(units: int, k: int) -> None:
    c = vectors(40, k).double()
    assert (apportion(c, units) * units).round().long().tolist() == [
        slow_apportion(row, units) for row in c.tolist()
    ]


def test_apportion_breaks_ties_by_position() -> None:
    assert apportion(torch.tensor([[0.25, 0.25, 0.25, 0.25]]), 2).tolist() == [[0.5, 0.5, 0.0, 0.0]]


@pytest.mark.parametrize("decimals", range(7))
@pytest.mark.parametrize("k", [2, 5, 40])
def test_rounding_releases_multiples_close_by(decimals: int, k: int) -> None:
    c, x = vectors(200, k), pictures(200)
    unit = 10.0**-decimals
    z = protect(Rounding(RoundingConfig(decimals=decimals)), c, x)
    multiples = z.double() / unit
    # The label's tied rivals are one ulp below their multiple; a float32 itself is half an ulp off.
    assert float((multiples - multiples.round()).abs().max()) <= 1.3e-7 / unit
    assert torch.equal(multiples.round().sum(1), torch.full((200,), 10.0**decimals, dtype=torch.float64))
    assert (
        float((z.double() - c.double()).abs().max()) < unit + 2 * ULP
    )  # each score moves by less than a unit
    assert float((z.double() - c.double()).norm(dim=1).max()) < math.sqrt(k) * (unit + 2 * ULP)
    again = protect(Rounding(RoundingConfig(decimals=decimals)), z, x)
    assert torch.equal(again, z)  # idempotent


def test_rounding_to_no_decimals_is_label_only() -> None:
    c, x = vectors(50), pictures(50)
    assert torch.equal(protect(Rounding(RoundingConfig(decimals=0)), c, x), protect(LabelOnly(), c, x))


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
    """What versions before 0.1.0 wrote for one and two decimals; two were the default."""
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
