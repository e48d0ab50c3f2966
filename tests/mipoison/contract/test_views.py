"""The made-up defender's side: vectors on the simplex, pictures in [0, 1], substitutes as configured."""

from __future__ import annotations

import torch

from mipoison.contract.views import linear_victim, pictures, untrained_decoder, vectors, view_of
from mipoison.models.inversion import SubstituteConfig


def test_shapes_and_ranges() -> None:
    c, x = vectors(9, 4), pictures(9, (3, 32, 32))
    assert c.shape == (9, 4)
    assert torch.allclose(c.sum(1), torch.ones(9))
    assert x.shape == (9, 3, 32, 32)
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    assert float(vectors(9, 4, sharpness=40.0).amax(1).mean()) > float(c.amax(1).mean())


def test_substitutes_are_as_configured() -> None:
    raw = untrained_decoder(4, SubstituteConfig(features="raw"))
    log = untrained_decoder(4, SubstituteConfig(features="log"))
    assert raw(vectors(3, 4)).shape == (3, 1, 16, 16)
    assert not torch.equal(raw(vectors(3, 4)), log(vectors(3, 4)))


def test_grey_images_look_alike_to_the_linear_victim() -> None:
    victim = linear_victim(5)
    grey = torch.tensor([0.1, 0.9])[:, None, None, None].expand(2, 1, 16, 16)
    assert torch.allclose(*victim(grey), atol=1e-4)
    assert not torch.allclose(*victim(pictures(2)), atol=1e-2)


def test_a_view_of_any_number_of_classes() -> None:
    view = view_of(7)
    assert view.c_private_NK.shape == (30, 7)
    assert view.ask is not None
    assert view.ask(pictures(3)).shape == (3, 7)
