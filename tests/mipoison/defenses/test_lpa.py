"""LPA: it climbs its own objective, one step by hand, and asks for the substitute that it names."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.defenses.lpa import LPA, LPAConfig
from mipoison.defenses.noise import random_direction
from mipoison.models.inversion import InversionNet
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import (
    MakeDecoder,
    fitted,
    interior,
    pictures,
    protect,
    vectors,
    view_of,
)


def lpa(view: DefenderView, **changes: Any) -> LPA:
    defense = fitted("lpa", view, **changes)
    assert isinstance(defense, LPA)
    return defense


@pytest.mark.parametrize("features", ["log", "raw"])
@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_lpa_rises_against_its_random_start_and_flipped_falls(
    make_decoder: MakeDecoder, scope: str, features: str
) -> None:
    view = view_of(make_decoder(5, width=4, features=features), 5)
    c, x = vectors(40, sharpness=0.3), pictures(40)  # no score near 0, where log features jump
    judge = lpa(view, scope=scope)
    settings = dict(budget=0.05, scope=scope, step=0.3, search="descent")

    def cosines(**changes: Any) -> Tensor:
        return judge.align(protect(lpa(view, **settings, **changes), c, x), x).cosine_N

    start, few, many = cosines(rounds=0), cosines(rounds=3), cosines(rounds=15)
    flipped = cosines(rounds=15, target="flipped")
    assert float(few.mean()) > float(start.mean())
    assert float(many.mean()) > float(few.mean())
    assert float((many > start).float().mean()) > 0.9
    assert float(flipped.mean()) < float(start.mean())
    assert float((flipped < start).float().mean()) > 0.9


def test_lpa_distance_objective_lowers_the_distance(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    """Poi_MSE: ||t - g||^2 a sample, from gradients that plain autograd computes."""
    view, c, x = easy
    settings = dict(budget=0.05, objective="distance", step=0.3, search="descent")

    def distance(defense: LPA, z: Tensor) -> float:
        from mipoison.alignment import parameter_gradient

        total = 0.0
        for i in range(len(z)):
            g = parameter_gradient(defense.substitute, z[i : i + 1], x[i : i + 1])
            total += sum(float((t - a).square().sum()) for t, a in zip(defense.target, g, strict=True))
        return total

    start, aligned = lpa(view, rounds=0, **settings), lpa(view, rounds=15, **settings)
    assert distance(aligned, protect(aligned, c, x)) < distance(start, protect(start, c, x))


def test_lpa_without_rounds_is_matched_noise(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, _, x = easy
    c = interior(40).double()
    z = lpa(view, rounds=0, budget=0.05, search="descent")
    moved = protect(z, c, x) - c
    direction = random_direction(c, QueryRandomness(content_keys(x, b"secret")), "lpa start")
    torch.testing.assert_close(moved / 0.05, direction, rtol=0, atol=1e-6)


def test_lpa_takes_one_step_by_hand(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    """Inside the simplex and the ball the first step is d0 - alpha * budget * u."""
    view, _, x = easy
    c, budget, step = interior(40), 0.05, 0.5
    defense = lpa(view, rounds=1, budget=budget, step=step, search="descent")
    start = protect(lpa(view, rounds=0, budget=budget, search="descent"), c, x)
    gradient = defense.align(start, x).gradient_NK.double()
    gradient -= gradient.mean(1, keepdim=True)
    wish = start.double() - step * budget * gradient / gradient.norm(dim=1, keepdim=True)
    distance = (wish - c).norm(dim=1)
    inside = distance < budget * 0.999
    assert int(inside.sum()) > 5
    torch.testing.assert_close(protect(defense, c, x)[inside].double(), wish[inside], rtol=0, atol=1e-6)


def test_lpa_may_flip_labels_when_told_so(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, _, x = easy
    c = torch.full((40, 5), 0.2)
    c[:, 2] += 0.002
    c /= c.sum(1, keepdim=True)
    free, kept = lpa(view, keep_label=False, budget=0.05), lpa(view, budget=0.05)
    assert not free.keeps_label
    assert kept.keeps_label
    assert not torch.equal(label_of(protect(free, c, x)), label_of(c))
    assert torch.equal(label_of(protect(kept, c, x)), label_of(c))


def test_lpa_targets(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, _, _ = easy
    private, flipped, random = (lpa(view, target=t) for t in ("private", "flipped", "random"))
    for a, b in zip(private.target, flipped.target, strict=True):
        assert torch.equal(a, -b)
    flat = torch.cat([t.flatten() for t in random.target])
    assert abs(float(flat.mean())) < 0.2
    assert float(flat.std()) == pytest.approx(1, abs=0.15)
    other: LPA = LPAConfig(target="random").make()
    other.fit(view, rng=generator(1, "defense", "lpa"))
    assert not torch.equal(other.target[0], random.target[0])


def test_lpa_asks_for_the_substitute_that_its_settings_name(make_decoder: MakeDecoder) -> None:
    asked = []

    def substitute(config: Any) -> InversionNet:
        asked.append(config)
        return make_decoder(5)

    view = dataclasses.replace(view_of(make_decoder(5), 5), substitute=substitute)
    for name in ("lpa", "lfp"):
        fitted(name, view, substitute_features="raw", substitute_extra_blocks=1, substitute_data="all")
    for config in asked:
        assert (config.features, config.extra_blocks, config.data) == ("raw", 1, "all")
    assert len(asked) == 2


def test_the_defender_s_loss_does_not_change_lpa(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    """Negative PSNR of the whole set has the same direction as MSE: every cosine is equal."""
    view, c, x = easy
    assert torch.equal(protect(lpa(view, loss="mse"), c, x), protect(lpa(view, loss="psnr"), c, x))
