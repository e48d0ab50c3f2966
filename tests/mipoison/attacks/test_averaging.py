"""Averaging reduces fresh noise by sqrt(q) and keyed noise not at all; the oracle counts every query."""

from typing import Any

import pytest
import torch
from torch import Tensor

import mipoison.attacks.averaging as averaging_module
import mipoison.attacks.decoder as decoder_module
from mipoison.attacks import ATTACKS
from mipoison.attacks.averaging import AveragingConfig
from mipoison.attacks.decoder import DecoderConfig
from mipoison.config import ConfigError
from mipoison.defenses.noise import NoiseConfig
from mipoison.deployment import deploy
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from mipoison.scene import Scene
from mipoison.service import MeteredOracle

SIZES: dict[str, Any] = {"width": 2, "steps": 5, "batch": 16, "lr": 5e-3}
BUDGET = 1e-3


def trained_on(monkeypatch: pytest.MonkeyPatch, scene: Scene, randomness: str, config: DecoderConfig):
    """What a fitted attacker trained on, its images, the clean vectors of those, its oracle."""
    calls: list[tuple[Tensor, Tensor]] = []
    original = decoder_module.train

    def spy(model: Any, inputs: Tensor, targets: Tensor, *rest: Any, **kwargs: Any) -> Any:
        calls.append((inputs, targets))
        return original(model, inputs, targets, *rest, **kwargs)

    monkeypatch.setattr(decoder_module, "train", spy)
    deployment = deploy(scene, "noise", NoiseConfig(budget=BUDGET, randomness=randomness))  # type: ignore[arg-type]
    oracle = MeteredOracle(deployment.service.session(), scene.split.n_classes)
    known = ThreatModel("noise", deployment.config.flat(), scene.split.image_shape)
    config.make().fit(oracle, scene.split.attack_train.x_NCHW, known=known, rng=generator(0))
    return *calls[-1], oracle


def inner(scene: Scene) -> Tensor:
    """Rows far enough from the faces of the simplex that projecting does not bias their noise."""
    return scene.clean["attack_train"].amin(1) > 2 * BUDGET


def distance(a_NK: Tensor, b_NK: Tensor) -> float:
    return float((a_NK.double() - b_NK.double()).square().sum(1).mean().sqrt())


@pytest.mark.parametrize("q", [4, 16, 64])
def test_fresh_noise_shrinks_with_the_root_of_q(monkeypatch, tiny_scene: Scene, q: int) -> None:
    """The noise is a uniform direction of fixed length: independent, of mean zero, variance budget^2."""
    c, _, _ = trained_on(monkeypatch, tiny_scene, "fresh", AveragingConfig(queries=q, **SIZES))
    rows = inner(tiny_scene)
    assert int(rows.sum()) >= 20
    error = distance(c[rows], tiny_scene.clean["attack_train"][rows])
    assert error == pytest.approx(BUDGET / q**0.5, rel=0.25)


def test_keyed_noise_stays(monkeypatch, tiny_scene: Scene) -> None:
    one, _, _ = trained_on(monkeypatch, tiny_scene, "keyed", AveragingConfig(queries=1, **SIZES))
    many, _, _ = trained_on(monkeypatch, tiny_scene, "keyed", AveragingConfig(queries=16, **SIZES))
    torch.testing.assert_close(many, one, rtol=0, atol=1e-7)
    rows = inner(tiny_scene)
    assert distance(many[rows], tiny_scene.clean["attack_train"][rows]) == pytest.approx(BUDGET, rel=1e-3)


@pytest.mark.parametrize("pool", ["mean", "each"])
def test_every_asking_is_metered(monkeypatch, tiny_scene: Scene, pool: Any) -> None:
    config = AveragingConfig(queries=5, pool=pool, **SIZES)
    _, _, oracle = trained_on(monkeypatch, tiny_scene, "fresh", config)
    assert oracle.queries == 5 * len(tiny_scene.split.attack_train)


def test_pooled_answers_keep_their_images(monkeypatch, tiny_scene: Scene) -> None:
    config = AveragingConfig(queries=3, pool="each", **SIZES)
    c, x, _ = trained_on(monkeypatch, tiny_scene, "fresh", config)
    own = tiny_scene.split.attack_train.x_NCHW
    assert torch.equal(x, torch.cat([own, own, own]))
    clean = tiny_scene.clean["attack_train"]
    for part in c.reshape(3, *clean.shape):
        assert float((part - clean).norm(dim=1).max()) <= BUDGET * (1 + 1e-3)
    assert not torch.equal(c[: len(own)], c[len(own) : 2 * len(own)])


def test_the_view_comes_after_the_mean() -> None:
    """Rounding the answers 0.04 and 0.06 to tenths first would give 0.05; their mean is rounded to 0.1."""

    class Alternating:
        n_classes, queries = 2, 0

        def query(self, x_NCHW: Tensor) -> Tensor:
            self.queries += 1
            low = 0.04 if self.queries % 2 else 0.08
            return torch.tensor([[low, 1 - low]]).repeat(len(x_NCHW), 1)

    config = AveragingConfig(queries=2, view="rounding", strength=1.0, **SIZES)
    attack = averaging_module.Averaging(config)
    attack.strength, attack.rng = 1.0, generator(0)
    c, _ = attack.pairs(Alternating(), torch.zeros(3, 1, 16, 16), ThreatModel(None, {}, (1, 16, 16)))
    torch.testing.assert_close(c, torch.tensor([[0.1, 0.9]]).repeat(3, 1))


def test_bounds() -> None:
    for changes in ({"queries": 0}, {"queries": 1025}, {"pool": "each", "validation": 0.1}, {"view": "x"}):
        with pytest.raises(ConfigError, match=next(iter(set(changes) - {"pool"}))):
            AveragingConfig(**changes)  # type: ignore[arg-type]
    assert {ATTACKS[n].flat()["queries"] for n in ("averaging-4", "averaging-16")} == {4, 16}
