"""One-parameter defense: draws against their density, ranks that stay."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from mipoison.defenses import DEFENSES
from mipoison.defenses.onepara import truncated_laplace
from tests.mipoison.defenses.helpers import pictures, protect, vectors


@pytest.mark.parametrize("rate", [1e-3, 1.0, 50.0, 5e4])
@pytest.mark.parametrize(("low", "centre", "high"), [(0.1, 0.2, 0.7), (0.0, 0.0, 0.3), (0.4, 1.0, 1.0)])
def test_the_mechanism_draws_from_its_density(rate, low, centre, high) -> None:
    u = torch.linspace(0.001, 0.999, 41, dtype=torch.float64)
    full = [torch.full_like(u, v) for v in (centre, low, high)]
    y = truncated_laplace(u, *full, rate)
    assert bool(((y >= low) & (y <= high)).all())
    assert bool((y.diff() >= 0).all())

    def mass(a: float, b: float) -> float:
        ends = sorted({a, min(max(centre, a), b), b})
        pieces = list(itertools.pairwise(ends))
        if rate < 1e3:
            return sum(
                quad(lambda t: np.exp(-rate * abs(t - centre)), p, q, epsabs=1e-14)[0] for p, q in pieces
            )
        nearest = [(q - p, min(abs(p - centre), abs(q - centre))) for p, q in pieces]  # quad misses the peak
        return sum(-np.expm1(-rate * length) * np.exp(-rate * near) / rate for length, near in nearest)

    whole = mass(low, high)
    for share, value in zip(u.tolist()[::8], y.tolist()[::8], strict=True):
        assert mass(low, value) / whole == pytest.approx(share, abs=1e-6)


def test_onepara_keeps_ranks_and_tends_to_the_identity() -> None:
    c, x = vectors(200, 8), pictures(200)
    for epsilon in (0.1, 10.0, 1e9):
        defense = DEFENSES["onepara"](epsilon=epsilon).make()
        z = protect(defense, c, x)
        assert torch.equal(z.argsort(1), c.argsort(1))
    torch.testing.assert_close(z, c, rtol=0, atol=1e-6)
    near, far = (
        float((protect(DEFENSES["onepara"](epsilon=e).make(), c, x) - c).norm(dim=1).mean()) for e in (1e3, 1)
    )
    assert near < far


def test_no_normalised_vector_is_as_far_as_the_paper_says() -> None:
    """From one-hot to uniform is 0.894 for five classes: the reported 0.991 is beyond it."""
    c = torch.eye(5).repeat(40, 1)
    z = protect(DEFENSES["onepara"](epsilon=0.1).make(), c, pictures(200))
    assert float((z - c).norm(dim=1).max()) <= np.sqrt(1 - 1 / 5) + 1e-6
