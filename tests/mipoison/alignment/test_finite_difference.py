"""Finite differences: the step by its formula, and both directions against a double backward in float64."""

import math

import pytest
import torch

from mipoison.alignment.finite_difference import along_samples, along_shared, own_gradients, step_length
from tests.mipoison.alignment.helpers import MakeDecoder, flat_gradient, pictures, random_target, vectors


def test_the_step_balances_rounding_and_curvature() -> None:
    theta = [torch.full((3,), 2.0, dtype=torch.float64), torch.full((1,), 2.0, dtype=torch.float64)]
    h = step_length(theta, torch.tensor(8.0, dtype=torch.float64))
    assert float(h) == pytest.approx((2.0**-52) ** (1 / 3) * math.sqrt(16) / 8)
    assert bool(torch.isfinite(step_length(theta, torch.tensor(0.0, dtype=torch.float64))))


@pytest.mark.parametrize("features", ["log", "raw"])
def test_the_derivative_along_a_direction(make_decoder: MakeDecoder, features: str) -> None:
    decoder = make_decoder(features=features).double()
    v, c, x = random_target(decoder), vectors(), pictures(16)
    flat = torch.cat([d.flatten() for d in v])
    rows = []
    for i in range(len(c)):
        one = c[i : i + 1].clone().requires_grad_(True)
        g = flat_gradient(decoder.requires_grad_(True), one, x[i : i + 1], create_graph=True)
        rows.append(torch.autograd.grad(torch.dot(flat, g), one)[0])
    expected = torch.cat(rows)
    decoder.requires_grad_(False)
    scale = expected.abs().amax(1, keepdim=True)
    torch.testing.assert_close(along_shared(decoder, v, c, x) / scale, expected / scale, rtol=0, atol=1e-5)
    own = [d.expand(len(c), *d.shape) for d in v]
    torch.testing.assert_close(along_samples(decoder, own, c, x) / scale, expected / scale, rtol=0, atol=1e-5)


def test_own_gradients_are_plain_autograds(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder().double()
    c, x = vectors(), pictures(16)
    own = own_gradients(decoder, c, x)
    for i in range(len(c)):
        flat = torch.cat([g[i].flatten() for g in own])
        torch.testing.assert_close(flat, flat_gradient(decoder, c[i : i + 1], x[i : i + 1]))
