"""One recipe for substitutes: a scene's, a unit's, and the same training written out here, bit for bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.data.splits import halves
from mipoison.defenses.lpa import LPA
from mipoison.defenses.substitutes import Substitutes
from mipoison.models.inversion import InversionNet, SubstituteConfig
from mipoison.randomness import generator
from mipoison.scene import Scene
from mipoison.serving.protect import fit_unit
from mipoison.training import negative_psnr, seeded, train

CPU = torch.device("cpu")


def same(a: InversionNet, b: InversionNet) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][name]) for name, value in states[0].items()
    )


def test_a_scene_s_substitute_is_the_recipe_written_out(tiny_scene: Scene) -> None:
    config = SubstituteConfig(features="raw", loss="psnr", data="D2")
    scale, split = tiny_scene.config, tiny_scene.split
    part = halves(split.attack_train, seed=scale.seed)[1]
    with torch.no_grad():
        c_NK = torch.cat([tiny_scene.victim(x).softmax(1) for x in part.x_NCHW.split(128)])
    rng = generator(scale.seed, "substitute", config.digest())
    with seeded(rng, CPU):
        net = config.architecture(scale.decoder_width).make(split.image_shape, split.n_classes)
    train(
        net, c_NK, part.x_NCHW, negative_psnr, steps=scale.decoder_steps, batch=scale.decoder_batch,
        lr=scale.decoder_lr, betas=(0.5, 0.999), amsgrad=True, rng=rng,
    )  # fmt: skip
    found = tiny_scene.substitute(config)
    assert same(found, net)
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())
    c_found, x_found = tiny_scene.view().substitute_data(config)
    assert torch.equal(c_found, c_NK)
    assert torch.equal(x_found, part.x_NCHW)


@pytest.mark.parametrize("data", ["D1", "all"])
def test_a_unit_s_substitute_is_the_scene_s(tiny_scene: Scene, data: Any) -> None:
    split = tiny_scene.split
    unit = fit_unit(
        tiny_scene.victim,
        private=(split.private_train.x_NCHW, split.private_train.y_N),
        public=(split.attack_train.x_NCHW, split.attack_train.y_N),
        defense="lpa", config={"substitute_data": data}, scale=tiny_scene.config, device="cpu",
    )  # fmt: skip
    assert isinstance(unit.defense, LPA)
    assert same(unit.defense.substitute, tiny_scene.substitute(SubstituteConfig(data=data)))


def test_the_store_is_passed_in_and_the_sizes_are_asked_for_at_need(tiny_scene: Scene) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    kept: dict[str, Tensor] = {}

    def trained(kind: str, settings: Any, make: Any, like: Any = None) -> dict[str, Tensor]:
        asked.append((kind, dict(settings)))
        kept.update(kept or make())
        assert {k: v.shape for k, v in kept.items()} == {k: v.shape for k, v in like.items()}
        return kept

    def refused() -> Any:
        raise ValueError("no substitute for such images")

    substitutes = dataclasses.replace(tiny_scene.substitutes(), trained=trained)
    config = SubstituteConfig()
    assert same(substitutes.network(config), substitutes.network(config))
    assert asked == [("substitute", config.flat())] * 2
    assert isinstance(substitutes, Substitutes)
    without = dataclasses.replace(substitutes, sizes=refused)
    assert len(without.data(config)[0]) == len(tiny_scene.data_halves["D1"])
    with pytest.raises(ValueError, match="no substitute"):
        without.network(config)
