"""PGD on the substitute's loss: its gradient against differences, and where it ends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mipoison.defenses.pgd import loss_gradient
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import fitted, pictures, protect, vectors, view_of


def losses(decoder, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    return (decoder(c_NK) - x_NCHW).square().flatten(1).mean(1).detach()


def test_the_loss_gradient_is_that_of_finite_differences(make_decoder) -> None:
    net = make_decoder(5, features="raw").double()
    c, x = vectors(4).double(), pictures(4).double()
    found, h = loss_gradient(net, c, x), 1e-6
    for k in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[k] = h
        slope = (losses(net, c + step, x) - losses(net, c - step, x)) / (2 * h)
        torch.testing.assert_close(found[:, k], slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["pgd", "advexa"])
def test_ascent_goes_up(name, make_decoder) -> None:
    """The substitute's loss is above the clean one's and above a random start's, for nearly every query."""
    net = make_decoder(5, features="raw")
    c, x = vectors(60, sharpness=0.7), pictures(60)
    budget = 0.1
    z = protect(fitted(name, view_of(net, 5), budget=budget, rounds=20), c, x)
    start = protect(fitted("noise", view_of(net, 5), budget=budget), c, x)
    assert float((losses(net, z, x) > losses(net, c, x)).double().mean()) > 0.95
    assert float((losses(net, z, x) > losses(net, start, x)).double().mean()) > 0.9


def test_pgd_may_lose_the_label_and_advexa_may_not(make_decoder) -> None:
    net = make_decoder(5, features="raw")
    c, x = vectors(80, sharpness=0.3), pictures(80)
    free, kept = (
        protect(fitted(name, view_of(net, 5), budget=0.3, rounds=20), c, x) for name in ("pgd", "advexa")
    )
    assert not torch.equal(label_of(free), label_of(c))
    assert torch.equal(label_of(kept), label_of(c))
    assert float((kept - c).norm(dim=1).mean()) > 0.02  # it does move
