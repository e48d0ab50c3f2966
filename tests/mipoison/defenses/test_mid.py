"""MID: it learns its task, beta squeezes it, and it is trained once a scene."""

from __future__ import annotations

import torch

from mipoison.models.bottleneck import kl_to_standard_normal
from mipoison.randomness import QueryRandomness
from tests.mipoison.defenses.helpers import fitted, protect


def test_mid_learns_its_task_and_beta_squeezes_it(tiny_scene) -> None:
    c, x = tiny_scene.clean["private_test"], tiny_scene.split.private_test.x_NCHW
    y = tiny_scene.split.private_test.y_N
    agreement, spread = {}, {}
    for beta in (1e-4, 5.0):
        defense = fitted("mid", tiny_scene.view(), beta=beta)
        z = protect(defense, c, x)
        agreement[beta] = float((z.argmax(1) == y).double().mean())
        mu, sigma = defense.network.bottleneck(x)
        spread[beta] = float(kl_to_standard_normal(mu, sigma).mean())
    assert agreement[1e-4] > 0.85
    assert spread[5.0] < 0.2 * spread[1e-4]


def test_mid_sampling(tiny_scene) -> None:
    c, x = tiny_scene.clean["private_test"][:8], tiny_scene.split.private_test.x_NCHW[:8]
    answers = {}
    for sampling in ("keyed", "fresh", "mean"):
        defense = fitted("mid", tiny_scene.view(), sampling=sampling)
        assert defense.fresh == (sampling == "fresh")
        answers[sampling] = [
            defense.protect(c, x, defense.pick(c), rng=QueryRandomness(torch.arange(8) + shift))
            for shift in (0, 100)
        ]
    assert torch.equal(answers["keyed"][0], answers["fresh"][0])  # one network, one draw per key
    assert not torch.equal(*answers["keyed"])
    assert torch.equal(*answers["mean"])


def test_mid_is_trained_once_per_scene_and_settings(tiny_scene) -> None:
    fitted("mid", tiny_scene.view(), beta=0.3)
    before = tiny_scene.store.made
    fitted("mid", tiny_scene.view(), beta=0.3)
    fitted("mid", tiny_scene.view(), beta=0.3, sampling="mean")
    assert tiny_scene.store.made == before
    fitted("mid", tiny_scene.view(), beta=0.31)
    assert tiny_scene.store.made == before + 1
