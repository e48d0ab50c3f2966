"""The tuned attacker tries as many candidates as configured, on its own data, and queries each image once."""

from typing import Any

import pytest
import torch
from torch import Tensor

import mipoison.attacks.tuned as tuned_module
from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.attacks.tuned import CANDIDATES, RecordedAnswers, TunedConfig
from mipoison.config import ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from tests.mipoison.attacks.helpers import Brightness, grey

SHAPE = (1, 16, 16)
KNOWN = ThreatModel("noise", {"budget": 0.01}, SHAPE)
SIZES: dict[str, Any] = {"width": 2, "steps": 20, "batch": 16, "lr": 5e-3}


def test_the_budget_buys_candidates_in_order() -> None:
    plain = DecoderConfig(**SIZES)
    (first,) = TunedConfig(tune=1, **SIZES).candidates()
    assert first == plain
    everything = TunedConfig(tune=len(CANDIDATES), **SIZES).candidates()
    assert len(set(everything)) == len(CANDIDATES)
    assert everything[:6] == TunedConfig(**SIZES).candidates()
    assert {c.steps for c in everything} == {10, 20, 40}
    assert {c.lr for c in everything} == {5e-3, 0.4 * 5e-3}


def test_the_best_on_held_out_images_is_trained_anew_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[DecoderConfig, Tensor]] = []
    original = Decoder.fit

    def spy(self: Decoder, oracle: Any, x_NCHW: Tensor, **kwargs: Any) -> None:
        assert isinstance(oracle, RecordedAnswers)
        torch.testing.assert_close(oracle.c_NK, Brightness().query(x_NCHW))  # pairs stay pairs
        asked.append((self.config, x_NCHW))
        original(self, oracle, x_NCHW, **kwargs)

    monkeypatch.setattr(Decoder, "fit", spy)
    x, oracle = grey(60), Brightness()
    attack = TunedConfig(tune=3, judge=0.25, **SIZES).make()
    attack.fit(oracle, x, known=KNOWN, rng=generator(0))
    assert oracle.queries == 60  # each answer once, whatever the number of candidates
    assert [len(images) for _, images in asked] == [45, 45, 45, 60]
    assert all(torch.equal(images, asked[0][1]) for _, images in asked[:3])
    assert asked[3][0] == attack.best == attack.config.candidates()[attack.errors.index(min(attack.errors))]


def test_it_leaves_a_hopeless_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate with a learning rate near zero is not chosen, wherever it is in the list."""
    monkeypatch.setattr(tuned_module, "CANDIDATES", ({"lr": 1e-9}, {}, {"lr": 1e-6}))
    sizes = {**SIZES, "steps": 120, "lr": 1e-2}
    attack = TunedConfig(tune=3, **sizes).make()
    attack.fit(Brightness(), grey(100), known=KNOWN, rng=generator(0))
    assert attack.best.lr == 1e-2
    assert attack.errors[1] < 0.5 * min(attack.errors[0], attack.errors[2])


def test_answers_belong_to_their_images() -> None:
    with pytest.raises(ValueError, match="5 images were answered, asked for 4"):
        RecordedAnswers(torch.full((5, 2), 0.5)).query(torch.zeros(4, *SHAPE))


@pytest.mark.parametrize("changes", [{"tune": 0}, {"tune": 13}, {"judge": 0.0}, {"judge": 0.6}])
def test_bounds(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        TunedConfig(**changes)
