"""The amortised LPA: what it learns holds for queries that it has not seen, by its own objective."""

from __future__ import annotations

import pytest
import torch

from mipoison.alignment import align_samples, angle_samples
from mipoison.models.generator import GeneratorNet
from mipoison.randomness import generator
from tests.mipoison.defenses.helpers import fitted, pictures, protect, vectors, view_of


@pytest.mark.parametrize("target", ["own", "private"])
def test_it_beats_matched_noise_at_its_own_objective(target, make_decoder) -> None:
    """A wrong sign would end on the other side of noise."""
    net = make_decoder(5, width=4, features="raw")
    view = view_of(net, 5, n=200)
    settings = {"budget": 0.1, "target": target, "substitute_features": "raw", "steps": 120, "lr": 1e-2}
    defense = fitted("lpa-amortised", view, **settings)
    c, x = vectors(80, seed=9), pictures(80, seed=5)[torch.arange(80)]
    noisy = protect(fitted("noise", view, budget=0.1), c, x)
    z = protect(defense, c, x)
    if target == "own":  # minimised: the cosine to its own clean gradient
        ours, theirs = (-angle_samples(net, v, c, x).cosine_N for v in (z, noisy))
    else:
        ours, theirs = (align_samples(net, defense.aim, v, x).cosine_N for v in (z, noisy))
    assert float(ours.mean()) > float(theirs.mean())
    assert float((z - c).norm(dim=1).mean()) > 0.02


def test_directions_are_unit_tangents() -> None:
    torch.manual_seed(0)
    net = GeneratorNet(torch.zeros(4), torch.ones(4), hidden=8, latent=3)
    c = vectors(10, 4)
    d = net.direction(c, torch.randn(10, 3, generator=generator(0)))
    torch.testing.assert_close(d.sum(1), torch.zeros(10), rtol=0, atol=1e-6)
    torch.testing.assert_close(d.norm(dim=1), torch.ones(10))
    assert net.train()(c).shape == (10, 5)
    assert net.eval()(c).shape == (10, 4)


def test_one_pass_and_no_image_at_serving_time(make_decoder, monkeypatch) -> None:
    defense = fitted("lpa-amortised", view_of(make_decoder(5), 5), steps=3)
    c, x = vectors(12), pictures(12)
    calls = []
    direction = defense.generator.direction
    monkeypatch.setattr(defense.generator, "direction", lambda *a: calls.append(1) or direction(*a))
    monkeypatch.setattr(defense, "substitute", None)
    assert protect(defense, c, x).shape == c.shape
    assert len(calls) == 1


def test_the_generator_is_made_once_per_scene(tiny_scene) -> None:
    fitted("lpa-amortised", tiny_scene.view(), steps=5)
    before = tiny_scene.store.made
    fitted("lpa-amortised", tiny_scene.view(), steps=5, randomness="fresh")
    assert tiny_scene.store.made == before
    fitted("lpa-amortised", tiny_scene.view(), steps=6)
    assert tiny_scene.store.made == before + 1
