"""One-step LPA: the best direction to first order, by finite differences."""

import pytest
import torch

from mipoison.alignment import align_samples
from mipoison.defenses.noise import random_direction
from mipoison.defenses.one_step import LPAOneStep
from mipoison.randomness import QueryRandomness
from tests.mipoison.defenses.helpers import fitted, interior, pictures, protect, view_of


@pytest.mark.parametrize("features", ["log", "raw"])
def test_no_other_direction_of_the_tangent_raises_the_cosine_more(make_decoder, features: str) -> None:
    decoder = make_decoder(5, width=4, features=features)
    defense = fitted("lpa-one-step", view_of(decoder, 5), budget=1e-4)
    assert isinstance(defense, LPAOneStep)
    decoder.double()
    defense.target = [t.double() for t in defense.target]
    c, x = interior(20).double(), pictures(20).double()

    def cosine(z: torch.Tensor) -> torch.Tensor:
        return align_samples(decoder, defense.target, z, x).cosine_N

    z = protect(defense, c, x)
    torch.testing.assert_close((z - c).norm(dim=1), torch.full((20,), 1e-4, dtype=torch.float64))
    gain = cosine(z) - cosine(c)
    assert bool((gain > 0).all())
    for stream in range(10):
        other = random_direction(c, QueryRandomness(torch.arange(20)), str(stream))
        assert bool((cosine(c + 1e-4 * other) - cosine(c) < 1.001 * gain).all())
