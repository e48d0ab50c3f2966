"""The diffusion model against closed forms, and on a problem that it must solve."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mipoison.attacks.diffusion import Diffusion, DiffusionConfig
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator

SHAPE = (1, 16, 16)


class TwoImages:
    """An oracle whose answer says which of two pictures was asked."""

    n_classes, queries = 3, 0

    def query(self, x_NCHW: Tensor) -> Tensor:
        left = (x_NCHW[..., :8].mean((1, 2, 3)) > 0.5).float()
        return torch.stack([0.8 * left + 0.1, 0.9 - 0.8 * left - 0.05, torch.full_like(left, 0.05)], 1)


def pictures(n: int) -> Tensor:
    x = torch.full((n, *SHAPE), 0.3)
    x[::2, ..., :8] = 0.7
    x[1::2, ..., 8:] = 0.7
    return x


@pytest.fixture(scope="module")
def attacker() -> Diffusion:
    attack = DiffusionConfig(
        features="raw", width=8, steps=400, longer=1, batch=32, lr=3e-3, timesteps=50
    ).make()
    known = ThreatModel(None, {}, SHAPE)
    attack.fit(TwoImages(), pictures(64), known=known, rng=generator(0, "attack"))
    return attack


def test_it_draws_the_picture_that_the_vector_names(attacker: Diffusion) -> None:
    c = TwoImages().query(pictures(6))
    found = attacker.reconstruct(c)
    errors = (found - pictures(6)).square().mean((1, 2, 3))
    crossed = (found - pictures(7)[1:]).square().mean((1, 2, 3))
    # A model that ignores its vector draws one of the two for both: closer to the other in half of the rows.
    assert bool((errors < 0.6 * crossed).all()), (errors, crossed)


def test_an_image_depends_on_its_vector_alone(attacker: Diffusion) -> None:
    c = TwoImages().query(pictures(6))
    whole = attacker.reconstruct(c)
    torch.testing.assert_close(attacker.reconstruct(c[2:3]), whole[2:3], rtol=0, atol=1e-4)
    assert torch.equal(attacker.reconstruct(c), whole)
    assert attacker.reconstruct(c[:0]).shape == (0, *SHAPE)


def test_bad_settings_are_refused() -> None:
    for changes in (
        {"guidance": -1.0},
        {"drop": 1.0},
        {"sampling_steps": 300},
        {"timesteps": 1},
        {"lr": 0.0},
    ):
        with pytest.raises(ValueError, match=next(iter(changes))):
            DiffusionConfig(**changes)
