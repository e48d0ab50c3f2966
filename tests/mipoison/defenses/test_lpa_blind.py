"""Blind LPA: LPA with a label's mean image in the place of every image, and no other."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.alignment import align_samples
from mipoison.defenses import DEFENSES
from mipoison.defenses.lpa_blind import LPABlind, mean_images
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import MakeDecoder, fitted, pictures, protect, vectors, view_of

SETTINGS = {"budget": 0.05, "rounds": 15, "step": 0.3}


@pytest.fixture(scope="module")
def easy(make_decoder: MakeDecoder) -> tuple[DefenderView, Tensor, Tensor]:
    """Vectors inside the simplex, where alignment has room; the public images are others than the private."""
    view = view_of(make_decoder(5, width=4), 5)
    public = vectors(30, seed=6), pictures(30, seed=6)
    return (
        dataclasses.replace(view, substitute_data=lambda config: public),
        vectors(40, sharpness=0.7),
        pictures(40),
    )


@pytest.mark.parametrize("stand_in", ["public", "private"])
def test_it_is_lpa_given_the_mean_images(stand_in: str, easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, c, x = easy
    blind, lpa = (
        alike(name, view, **more) for name, more in (("lpa-blind", {"stand_in": stand_in}), ("lpa", {}))
    )
    own, images = (
        (view.c_private_NK, view.x_private_NCHW)
        if stand_in == "private"
        else view.substitute_data(blind.config.substitute())  # type: ignore[attr-defined]
    )
    means = torch.stack([images[label_of(own) == k].double().mean(0) for k in range(5)]).float()
    keys = content_rng(x)
    everything = torch.ones(len(c), dtype=torch.bool)
    expected = lpa.protect(c, means[label_of(c)], everything, rng=keys)
    found = blind.protect(c, x, everything, rng=keys)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert not torch.equal(found, lpa.protect(c, x, everything, rng=keys))


def alike(name: str, view: DefenderView, **changes: Any) -> Defense:
    """Fitted with one generator, whatever the name."""
    defense: Defense = DEFENSES[name](**SETTINGS, **changes).make()  # type: ignore[attr-defined]
    defense.fit(view, rng=generator(0, "defense"))
    return defense


def content_rng(x_NCHW: Tensor) -> QueryRandomness:
    return QueryRandomness(content_keys(x_NCHW, b"secret"))


def test_it_aligns_the_mean_image_that_it_looks_at(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    """Against its own start: a wrong sign would end below it."""
    view, c, x = easy
    blind = fitted("lpa-blind", view, **SETTINGS)
    assert isinstance(blind, LPABlind)
    start = protect(fitted("lpa-blind", view, budget=0.05, rounds=0), c, x)
    means = blind.mean_KCHW[label_of(c)]
    before, after = (
        align_samples(blind.substitute, blind.target, z, means).cosine_N
        for z in (start, protect(blind, c, x))
    )
    assert float((after >= before).double().mean()) > 0.9
    assert float(after.mean()) > float(before.mean())


def test_label_means_against_a_loop_and_where_there_is_no_image() -> None:
    c, x = vectors(12, 3), pictures(12)
    c = c[label_of(c) != 1]
    x = x[: len(c)]
    found = mean_images(c, x)
    for k in (0, 2):
        rows = [x[i].double() for i in range(len(c)) if int(c[i].argmax()) == k]
        torch.testing.assert_close(found[k], (sum(rows) / len(rows)).float())  # type: ignore[operator, union-attr]
    torch.testing.assert_close(found[1], x.double().mean(0).float())
    with pytest.raises(ValueError, match="no image"):
        mean_images(c[:0], x[:0])


def test_the_means_are_saved(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, c, x = easy
    blind, again = (fitted("lpa-blind", v, **SETTINGS) for v in (view, view))
    assert isinstance(again, LPABlind)
    again.mean_KCHW = torch.zeros_like(again.mean_KCHW)
    assert not torch.equal(protect(again, c, x), protect(blind, c, x))
    again.load_state(blind.state())
    assert torch.equal(protect(again, c, x), protect(blind, c, x))
