"""The restorer undoes an invertible defense, and has nothing of the defender's: all it uses is its own."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from mipoison.attacks.restorer import LEAST_LOG, Restorer, RestorerConfig, RestoringNet
from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.lpa import LPAConfig
from mipoison.defenses.noise import NoiseConfig
from mipoison.defenses.pipeline import protect_chunks
from mipoison.protocols import DefenderView, ThreatModel
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene
from mipoison.service import MeteredOracle

SIZES: dict[str, Any] = {"width": 4, "steps": 40, "batch": 16, "lr": 5e-3}


class Sharpen(BaseDefense):
    """A defense that squares the scores: invertible, so that a restorer can do better than nothing."""

    views: ClassVar[list[DefenderView]] = []

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        Sharpen.views.append(view)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return c_NK.square() / c_NK.square().sum(1, keepdim=True)


class SharpenConfig(NoiseConfig):
    def make(self) -> Any:
        return Sharpen()


def fit(config: RestorerConfig, scene: Scene, defense: str | None, settings: dict[str, Any], n: int = 60):
    oracle = MeteredOracle(lambda x: answers(scene, x), scene.split.n_classes)
    attack = config.make()
    known = ThreatModel(defense, settings, scene.split.image_shape)
    attack.fit(oracle, scene.split.attack_train.x_NCHW[:n], known=known, rng=generator(0))
    return attack, oracle


def answers(scene: Scene, x_NCHW: Tensor) -> Tensor:
    """Clean vectors of the tiny scene's victim, squared."""
    c_NK = scene.clean["attack_train"][: len(x_NCHW)]
    return c_NK.square() / c_NK.square().sum(1, keepdim=True)


def log_distance(a_NK: Tensor, b_NK: Tensor) -> float:
    return float((a_NK.log().clamp_min(LEAST_LOG) - b_NK.log().clamp_min(LEAST_LOG)).square().mean().sqrt())


def test_it_undoes_a_map_that_can_be_undone(monkeypatch: pytest.MonkeyPatch, tiny_scene: Scene) -> None:
    """It restores private vectors, though it has seen neither them nor the victim."""
    monkeypatch.setitem(DEFENSES, "sharpen", SharpenConfig)
    Sharpen.views.clear()
    config = RestorerConfig(**{**SIZES, "steps": 300})
    attack, oracle = fit(config, tiny_scene, "sharpen", {"budget": 0.1}, n=100)
    clean = tiny_scene.clean["private_train"]
    released = clean.square() / clean.square().sum(1, keepdim=True)
    restored = attack.apply_view(released)
    assert log_distance(restored, clean) < 0.5 * log_distance(released, clean)
    torch.testing.assert_close(restored.sum(1), torch.ones(len(clean)))
    assert oracle.queries == 100  # the shadow world is its own
    (view,) = Sharpen.views
    own = {row.numpy().tobytes() for row in tiny_scene.split.attack_train.x_NCHW}
    assert {row.numpy().tobytes() for row in view.x_private_NCHW} < own
    assert len(view.x_private_NCHW) == len(view.c_private_NK) == 50


@pytest.mark.parametrize("name", DEFENSES)
def test_every_public_defense_can_be_rebuilt(tiny_scene: Scene, name: str) -> None:
    settings = DEFENSES[name]().flat()
    attack, _ = fit(RestorerConfig(**{**SIZES, "steps": 5}), tiny_scene, name, settings, n=24)
    assert (attack.restoring is None) == (name == "none")


@pytest.mark.parametrize("defense", [None, "none"])
def test_with_nothing_to_undo_vectors_stay(tiny_scene: Scene, defense: str | None) -> None:
    attack, _ = fit(RestorerConfig(**SIZES), tiny_scene, defense, {})
    c = tiny_scene.clean["private_train"][:9]
    assert torch.equal(attack.apply_view(c), c)


def test_a_defense_that_is_not_public_is_refused(tiny_scene: Scene) -> None:
    with pytest.raises(ValueError, match=r"restorer needs its code.*'hidden-one'"):
        fit(RestorerConfig(**SIZES), tiny_scene, "hidden-one", {})
    with pytest.raises(ConfigError, match="unknown NoiseConfig field 'power'"):
        fit(RestorerConfig(**SIZES), tiny_scene, "noise", {"power": 1})


@pytest.mark.parametrize("data", ["D1", "D2", "all"])
def test_an_aligned_defense_is_rebuilt_with_a_substitute_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tiny_scene: Scene, data: Any
) -> None:
    views: ClassVar[list[DefenderView]] = []
    original = Restorer._view

    def spy(self: Restorer, *arguments: Any) -> DefenderView:
        views.append(original(self, *arguments))
        return views[-1]

    monkeypatch.setattr(Restorer, "_view", spy)
    config = LPAConfig(budget=0.05, rounds=2, substitute_data=data, substitute_features="raw")
    attack, _ = fit(RestorerConfig(**SIZES), tiny_scene, "lpa", config.flat())
    assert attack.restoring is not None
    net = views[0].substitute(config.substitute())
    assert net.kind == "raw"
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert views[0].substitute(config.substitute()) is net  # built once
    c, x = views[0].substitute_data(config.substitute())
    assert len(c) == len(x) == {"D1": 15, "D2": 15, "all": 30}[data]
    private = {row.numpy().tobytes() for row in views[0].x_private_NCHW}
    assert not private & {row.numpy().tobytes() for row in x}


def test_the_restoring_network_begins_as_the_identity() -> None:
    net = RestoringNet(7, 4, 8)
    log_c = torch.log_softmax(torch.randn(5, 4, generator=generator(0)), 1)
    out = net(torch.cat([torch.randn(5, 7, generator=generator(1)), log_c], 1))
    torch.testing.assert_close(out, log_c)


def test_protected_is_what_the_api_answers(tiny_scene: Scene) -> None:
    from mipoison.service import DefendedService

    config = NoiseConfig(budget=0.1, randomness="fresh")
    x, c = tiny_scene.split.private_train.x_NCHW[:90], tiny_scene.clean["private_train"][:90]
    for made in (config.make(), NoiseConfig(budget=0.1).make()):
        service = DefendedService(
            tiny_scene.victim, made, secret=b"s", n_classes=c.shape[1], device=tiny_scene.device
        )
        chunks = protect_chunks(made, c, x, secret=b"s", device=tiny_scene.device)
        assert torch.equal(torch.cat(list(chunks.values())), service.answer(x))
    assert len(content_keys(x, b"s")) == 90


def test_too_few_images_for_two_halves(tiny_scene: Scene) -> None:
    with pytest.raises(ValueError, match="at least 8 images of its own, got 7"):
        fit(RestorerConfig(**SIZES), tiny_scene, "noise", {}, n=7)


def test_bounds() -> None:
    with pytest.raises(ConfigError, match="hidden"):
        RestorerConfig(hidden=0)
