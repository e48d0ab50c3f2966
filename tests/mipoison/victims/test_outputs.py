"""What a classifier returns: logits are found, probabilities recognised, stated or refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.scene import SceneConfig
from mipoison.serving.protect import fit_unit, load_unit
from mipoison.victims.outputs import FLOOR, log_probabilities, signs_of_probabilities
from tests.mipoison.victims.helpers import Around

# ------------------------------------------------------------------------------------ probabilities


PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda z: z.softmax(1),
    "half": lambda z: z.softmax(1).half().float(),
    "bfloat16": lambda z: z.softmax(1).bfloat16().float(),
    "three digits": lambda z: (1000 * z.softmax(1)).round() / 1000,
    "one digit": lambda z: (10 * z.softmax(1)).round() / 10,
    "clipped": lambda z: z.softmax(1).clamp(1e-3, 1 - 1e-3),
    "at temperature 30": lambda z: (z / 30).softmax(1),
    "per cent": lambda z: 100 * z.softmax(1),
    "whole per cents": lambda z: (100 * z.softmax(1)).round(),
    "sigmoid": lambda z: z.sigmoid(),
    "of 255": lambda z: (255 * z.softmax(1)).round(),
    "of 1000": lambda z: 1000 * z.softmax(1),
}

UNSTATED: dict[str, Callable[[Tensor], Tensor]] = {
    "a constant less": lambda z: z.softmax(1) - 1e-5,
    "unsure sigmoid": lambda z: (z - 8).sigmoid(),
    "a class dropped": lambda z: z.softmax(1)[:, 1:],
    "of 10": lambda z: (10 * z.softmax(1)).round(),
    "small and positive": lambda z: 0.1 + z / 500,
    "of two classes": lambda z: torch.stack([z[:, 0] / 40 + 0.5, z[:, 1] / 40 + 0.5], 1),
}
"""Recognised, too; some may be logits: to be stated."""

LOGITS: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda z: z,
    "log-softmax": lambda z: z.log_softmax(1),
    "above 0": lambda z: z.relu() + 1,
    "around 0": lambda z: z / 500,
    "around 0, centred": lambda z: (z - z.mean(1, keepdim=True)) / 500,
    "relu": lambda z: z.relu(),
    "two opposite": lambda z: torch.stack([z[:, 0], -z[:, 0]], 1),
    "around 10": lambda z: 10 + z / 10,
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_are_recognised(name: str, net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    p = PROBABILITIES[name](net(digits[0]))
    assert signs_of_probabilities(p)
    meant = p.double() / p.double().sum(1, keepdim=True)  # and stated, they are what is released
    found = torch.softmax(log_probabilities(p, "v").double(), 1)
    assert (found - meant).abs().max() < 1e-6
    assert float(found.min()) >= FLOOR / 2


@pytest.mark.parametrize("name", UNSTATED)
def test_what_may_be_probabilities_has_to_be_stated(
    name: str, net: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    z = UNSTATED[name](net(digits[0]))
    assert signs_of_probabilities(z)
    assert signs_of_probabilities(z[:20])


@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_not_taken_for_them(name: str, net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    assert signs_of_probabilities(LOGITS[name](net(digits[0]))) is None


def test_probabilities_are_refused_or_stated(
    net: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """Stated, they are protected as the same classifier's logits are; a unit remembers it, saved too."""
    x, y = digits
    soft = Around(net, lambda net, x: net(x).softmax(1).half())
    arguments = {"private": (x[:300], y[:300]), "public": x[300:], "defense": "rounding", "device": "cpu"}
    with pytest.raises(ConfigError, match=r"outputs='probabilities'.*--victim-outputs") as caught:
        fit_unit(soft, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    unit = fit_unit(soft, outputs="probabilities", **arguments)  # type: ignore[arg-type]
    unit.save(tmp_path / "unit")
    meant = fit_unit(net, **arguments).wrap(net)(x[:20])  # type: ignore[arg-type]
    for one in (unit, load_unit(tmp_path / "unit", device="cpu")):
        assert (one.wrap(soft)(x[:20]) - meant).abs().max() <= 0.011  # half precision may turn a digit
        with pytest.raises(ConfigError, match="that gives probabilities: outputs='logits' differs"):
            one.wrap(soft, outputs="logits")
    with pytest.raises(ConfigError, match="not probabilities as stated"):
        fit_unit(net, outputs="probabilities", **arguments)  # type: ignore[arg-type]
    fit_unit(soft, outputs="logits", **arguments)  # type: ignore[arg-type]


def test_records_of_stated_outputs_never_mix() -> None:
    plain = SceneConfig(victim="net:make", victim_digest="0" * 16)
    stated = dataclasses.replace(plain, victim_outputs="probabilities")
    assert "victim_outputs" not in plain.flat()  # so that identities made before the option stay
    assert plain.victim_name == f"net:make@{'0' * 16}"
    assert stated.victim_name == f"net:make@{'0' * 16}:probabilities"
    assert SceneConfig.from_flat(stated.flat()) == stated
    assert SceneConfig.from_flat(plain.flat("scene"), "scene") == plain
    with pytest.raises(ConfigError, match="one of logits, probabilities"):
        dataclasses.replace(plain, victim_outputs="scores")
    with pytest.raises(ConfigError, match="no own victim"):
        SceneConfig(victim_outputs="logits")
