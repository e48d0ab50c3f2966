"""MAD: its cosine against plain autograd, its gradient against differences, and the angle that it opens."""

import pytest
import torch
from torch import Tensor

from mipoison.alignment import angle_samples, parameter_gradient
from tests.mipoison.defenses.helpers import fitted, pictures, protect, vectors, view_of


def slow_cosines(decoder, c: Tensor, reference: Tensor, x: Tensor) -> Tensor:
    def gradient(row: Tensor, image: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in parameter_gradient(decoder, row[None], image[None])])

    return torch.stack(
        [
            torch.cosine_similarity(gradient(a, i), gradient(b, i), dim=0)
            for a, b, i in zip(c, reference, x, strict=True)
        ]
    )


@pytest.mark.parametrize("features", ["log", "raw"])
@pytest.mark.parametrize("extra_blocks", [0, 1])
def test_angles_match_autograd_and_differences(make_decoder, features: str, extra_blocks: int) -> None:
    decoder = make_decoder(5, width=3, features=features, extra_blocks=extra_blocks).double()
    c, reference, x = vectors(6, sharpness=0.7).double(), vectors(6, seed=1).double(), pictures(6).double()
    out = angle_samples(decoder, c, reference, x)
    torch.testing.assert_close(out.cosine_N, slow_cosines(decoder, c, reference, x), rtol=1e-9, atol=1e-10)
    h = 1e-6
    for j in range(5):
        up, down = c.clone(), c.clone()
        up[:, j] += h
        down[:, j] -= h
        difference = slow_cosines(decoder, up, reference, x) - slow_cosines(decoder, down, reference, x)
        torch.testing.assert_close(out.gradient_NK[:, j], difference / (2 * h), rtol=1e-4, atol=1e-6)
    assert all(not p.requires_grad for p in decoder.parameters())


def test_at_the_reference_the_cosine_is_one_and_flat(make_decoder) -> None:
    decoder = make_decoder(5).double()
    c, x = vectors(6).double(), pictures(6).double()
    out = angle_samples(decoder, c, c, x)
    torch.testing.assert_close(out.cosine_N, torch.ones(6, dtype=torch.float64))
    assert float(out.gradient_NK.abs().max()) < 1e-10


def test_mad_opens_the_angle_beyond_noise(make_decoder) -> None:
    decoder = make_decoder(5, width=4)
    view = view_of(decoder, 5)
    c, x = vectors(40, sharpness=0.3), pictures(40)
    start, few, many = (
        angle_samples(decoder, protect(fitted("mad", view, budget=0.05, rounds=r), c, x), c, x).cosine_N
        for r in (0, 3, 15)
    )
    assert float(start.mean()) < 1
    assert float(few.mean()) < float(start.mean())
    assert float(many.mean()) < float(few.mean())
    assert float((many < start).float().mean()) > 0.9
