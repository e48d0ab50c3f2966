"""What most defenses share: bounds of their settings, an engine that is kept, a state that is put back."""

from typing import Any

import pytest
import torch

from mipoison.alignment import norm_of
from mipoison.config import ConfigError
from mipoison.defenses.base import (
    AlignedConfig,
    AlignedDefense,
    BaseDefense,
    DescentConfig,
    SubstituteDefense,
)
from tests.mipoison.alignment.helpers import flat_gradient, random_target
from tests.mipoison.alignment.helpers import pictures as images
from tests.mipoison.alignment.helpers import vectors as confidences
from tests.mipoison.defenses.helpers import MakeDecoder, vectors


@pytest.mark.parametrize(
    ("cls", "changes"),
    [
        (DescentConfig, {"budget": 1.6}),
        (DescentConfig, {"rounds": -1}),
        (DescentConfig, {"step": 0.0}),
        (AlignedConfig, {"step": 2.5}),
        (AlignedConfig, {"substitute_extra_blocks": 4}),
    ],
)
def test_bounds(cls: type[DescentConfig], changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        cls(**changes)


def test_the_substitute_is_the_one_that_is_named() -> None:
    config = AlignedConfig(substitute_features="raw", substitute_extra_blocks=2, substitute_data="D2")
    found = config.substitute()
    assert (found.features, found.extra_blocks, found.data) == ("raw", 2, "D2")


def test_all_vectors_are_picked() -> None:
    assert BaseDefense().pick(vectors(3)).tolist() == [True] * 3


def test_an_engine_is_kept_until_substitute_or_target_change(make_decoder: MakeDecoder) -> None:
    defense = AlignedDefense()
    defense.substitute = make_decoder()
    defense.target = [torch.ones_like(p) for p in defense.substitute.parameters()]
    engine = defense.engine_for("auto")
    assert defense.engine_for("auto") is engine
    defense.target = [2 * t for t in defense.target]
    assert defense.engine_for("auto") is not engine


def test_the_mean_cosine_is_that_of_plain_autograd(make_decoder: MakeDecoder) -> None:
    defense = AlignedDefense()
    defense.substitute = make_decoder().double()
    defense.target = random_target(defense.substitute)
    c, x = confidences(), images(16)
    t = torch.cat([v.flatten() for v in defense.target])
    each = [flat_gradient(defense.substitute, c[i : i + 1], x[i : i + 1]) for i in range(len(c))]
    expected = sum(float(torch.dot(t, g) / (norm_of(defense.target) * g.norm())) for g in each) / len(each)
    assert defense.mean_cosine(c, x) == pytest.approx(expected)
    assert defense.mean_cosine(c[:0], x[:0]) is None


def test_a_substitute_comes_back_with_its_target(make_decoder: MakeDecoder) -> None:
    defense, again = SubstituteDefense(), SubstituteDefense()
    defense.substitute = make_decoder()
    defense.target = [torch.full_like(p, i) for i, p in enumerate(defense.substitute.parameters())]
    again.load_state(defense.state())
    c = vectors(3, 4)
    assert torch.equal(again.substitute(c), defense.substitute(c))
    assert all(map(torch.equal, again.target, defense.target))
