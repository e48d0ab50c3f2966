"""Purifier-style: gives back public vectors, through a bottleneck, and never loses a label."""

import dataclasses

import pytest
import torch

from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import fitted, pictures, protect, vectors, view_of


@pytest.fixture(scope="module")
def view(make_decoder):
    """400 public vectors that a one-dimensional code describes: softmax(s * direction)."""
    s = torch.linspace(-3, 3, 400)[:, None]
    c = torch.softmax(s * torch.tensor([[1.0, -1.0, 0.3, 0.0, -0.4]]), 1)
    return dataclasses.replace(view_of(make_decoder(5), 5), substitute_data=lambda config: (c, pictures(400)))


def test_a_bottleneck_gives_back_what_fits_through_it_and_nothing_else(view) -> None:
    purifier = fitted("purifier", view, bottleneck=1, label_weight=0.0)
    public = view.substitute_data(None)[0][::10]
    on = (protect(purifier, public, pictures(40)) - public).norm(dim=1)
    assert float(on.mean()) < 0.03
    c = vectors(40)
    off = (protect(purifier, c, pictures(40)) - c).norm(dim=1)
    assert float(off.mean()) > 5 * float(on.mean())
    # One number comes through: the released vectors, projection aside, lie on a curve.
    released = torch.softmax(purifier.autoencoder(c), 1)  # type: ignore[attr-defined]
    code = purifier.autoencoder[:4](c)  # type: ignore[attr-defined]
    assert code.shape == (40, 1)
    assert torch.allclose(torch.softmax(purifier.autoencoder[4:](code), 1), released)  # type: ignore[attr-defined]


def test_labels_that_the_autoencoder_loses_are_kept(view) -> None:
    purifier = fitted("purifier", view, bottleneck=1, label_weight=0.0)
    c = vectors(200)
    lost = label_of(torch.softmax(purifier.autoencoder(c), 1)) != label_of(c)  # type: ignore[attr-defined]
    assert int(lost.sum()) > 20
    assert torch.equal(label_of(protect(purifier, c, pictures(200))), label_of(c))
