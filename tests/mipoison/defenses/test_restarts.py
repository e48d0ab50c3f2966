"""LPA's search with restarts: against slow loops, against the best of many random vectors, and its parts."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.alignment import make_engine
from mipoison.config import digest
from mipoison.defenses import DEFENSES
from mipoison.defenses.lpa import LPA, LPAConfig
from mipoison.defenses.restarts import COUNT, Starts, climb, complementary, draw_starts
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.simplex import label_of, project_release
from tests.mipoison.alignment.helpers import slow, slow_batch
from tests.mipoison.defenses.helpers import (
    ULP,
    MakeDecoder,
    assert_released,
    fitted,
    interior,
    pictures,
    protect,
    vectors,
    view_of,
)

BUDGET = 0.01


def cosines(defense: LPA, z_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """One double backward a sample, in float64."""
    target = [t.double() for t in defense.target]
    import copy

    decoder = copy.deepcopy(defense.substitute).double()
    return slow(decoder, target, z_NK.double(), x_NCHW.double(), "cosine").cosine_N


def best_random(defense: LPA, c_NK: Tensor, x_NCHW: Tensor, n: int) -> Tensor:
    """The largest cosine of n random vectors within the budget: moves along the simplex, and in log space."""
    rng, engine = generator(0, "random vectors"), make_engine("auto", defense.substitute, defense.target)
    best_N = torch.full((len(c_NK),), -torch.inf)
    for i in range(n):
        noise_NK = torch.randn(c_NK.shape, generator=rng).double()
        if i % 2:
            moved_NK = torch.softmax(c_NK.double().log() + (3, 10)[i // 2 % 2] * noise_NK, 1)
        else:
            noise_NK -= noise_NK.mean(1, keepdim=True)
            moved_NK = c_NK.double() + (1, 0.3)[i // 2 % 2] * BUDGET * noise_NK / noise_NK.norm(
                dim=1, keepdim=True
            )
        z_NK = project_release(moved_NK, c_NK, BUDGET)
        best_N = torch.maximum(best_N, engine.align(z_NK, x_NCHW).cosine_N)
    return best_N


def test_restarts_align_better_than_the_best_of_many_random_vectors(make_decoder: MakeDecoder) -> None:
    """The descent does not, on vectors as certain as a trained classifier's: this is what restarts are for."""
    view = view_of(make_decoder(5, width=4), 5, n=40)
    c, x = vectors(30, sharpness=5.0), pictures(30)
    found = {}
    for search in ("restarts", "descent"):
        defense = fitted("lpa", view, search=search, budget=BUDGET)
        assert isinstance(defense, LPA)
        z = protect(defense, c, x)
        assert_released(z, c)
        assert torch.equal(label_of(z), label_of(c))
        assert float((z.double() - c.double()).norm(dim=1).max()) <= BUDGET + 2 * ULP
        found[search] = float(cosines(defense, z, x).mean())
    bar = float(best_random(defense, c, x, 300).mean())
    assert found["restarts"] > bar
    assert found["descent"] < bar
