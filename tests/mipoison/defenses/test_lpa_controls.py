"""The controls of LPA: each differs from LPA in the one thing that its name says."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.defenses.lpa import LPA
from mipoison.defenses.lpa_controls import partners
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness, content_keys
from tests.mipoison.defenses.helpers import fitted, pictures, protect, vectors, view_of

SETTINGS = dict(budget=0.05, rounds=15, step=0.3)


@pytest.fixture(scope="module")
def easy(make_decoder: Callable) -> tuple[DefenderView, Tensor, Tensor]:
    return view_of(make_decoder(5, width=4), 5), vectors(40, sharpness=0.3), pictures(40)


@pytest.mark.parametrize("name", ["lpa-flipped", "lpa-random", "lpa-shuffled"])
def test_controls_share_lpa_s_knobs_and_start(name: str, easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, c, x = easy
    assert DEFENSES[name].KNOBS == DEFENSES["lpa"].KNOBS
    settings = dict(budget=0.05, rounds=0, search="descent")
    start = protect(fitted("lpa", view, **settings), c, x)
    assert torch.equal(protect(fitted(name, view, **settings), c, x), start)


def test_the_true_target_is_met_by_lpa_alone(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    """Cosine to LPA's target on the true pairs: LPA above every control, flipped below its own start."""
    view, c, x = easy
    judge = fitted("lpa", view)
    names = ("lpa", "lpa-flipped", "lpa-random", "lpa-shuffled")
    cosine = {name: judge.alignment(protect(fitted(name, view, **SETTINGS), c, x), x) for name in names}
    noise = fitted("lpa", view, budget=0.05, rounds=0, search="descent")
    start = judge.alignment(protect(noise, c, x), x)
    assert cosine["lpa"] > max(start, cosine["lpa-random"], cosine["lpa-shuffled"])
    assert cosine["lpa-flipped"] < min(start, cosine["lpa-random"], cosine["lpa-shuffled"])


@pytest.mark.parametrize(("name", "target"), [("lpa-flipped", "flipped"), ("lpa-random", "random")])
def test_a_fixed_target_is_lpa_s_setting(
    name: str, target: str, easy: tuple[DefenderView, Tensor, Tensor]
) -> None:
    view, c, x = easy
    ours, setting = fitted(name, view, **SETTINGS), fitted("lpa", view, target=target, **SETTINGS)
    assert isinstance(ours, LPA)
    assert isinstance(setting, LPA)
    if target == "random":  # its generator carries the family's name
        setting.target = ours.target
    setting.starts = ours.starts  # drawn by that generator
    assert torch.equal(protect(ours, c, x), protect(setting, c, x))
    with pytest.raises(ConfigError, match="must be one of"):
        DEFENSES[name](target="private")


def test_shuffling_is_a_derangement_that_repeats_in_any_order() -> None:
    rng = QueryRandomness(content_keys(pictures(30), b"s"))
    partner = partners(rng)
    assert sorted(partner.tolist()) == list(range(30))
    assert bool((partner != torch.arange(30)).all())
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(order[partners(rng[order])], partner[order])
    assert partners(rng[:1]).tolist() == [0]
    assert partners(rng[:0]).tolist() == []
    other = partners(QueryRandomness(content_keys(pictures(30), b"t")))
    assert not torch.equal(other, partner)


@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_shuffled_is_lpa_on_the_partner_s_image(
    scope: str, easy: tuple[DefenderView, Tensor, Tensor]
) -> None:
    view, c, x = easy
    rng = QueryRandomness(content_keys(x, b"secret"))
    picked = torch.ones(len(c), dtype=torch.bool)
    ours = fitted("lpa-shuffled", view, scope=scope, **SETTINGS)
    lpa = fitted("lpa", view, scope=scope, **SETTINGS)
    lpa.starts = ours.starts  # drawn by a generator that carries the defense's name
    expected = lpa.protect(c, x[partners(rng)], picked, rng=rng)
    assert torch.equal(ours.protect(c, x, picked, rng=rng), expected)
    assert not torch.equal(lpa.protect(c, x, picked, rng=rng), expected)
    one = rng[:1]
    assert torch.equal(
        ours.protect(c[:1], x[:1], picked[:1], rng=one), lpa.protect(c[:1], x[:1], picked[:1], rng=one)
    )
