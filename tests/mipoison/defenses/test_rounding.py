"""Rounding against exact fractions: the largest remainders win, and what is released adds up to one."""

import math

import pytest
import torch

from mipoison.defenses.label_only import LabelOnly
from mipoison.defenses.rounding import Rounding, RoundingConfig, apportion
from tests.mipoison.defenses.helpers import ULP, pictures, protect, vectors

# ------------------------------------------------------------------------------------------------ rounding


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
