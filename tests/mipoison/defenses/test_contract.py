"""The contract of everything in DEFENSES, then each defense against what it is supposed to do."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.alignment import target_gradient
from mipoison.contract import DEFENSE_CHECKS, DefenseCase
from mipoison.contract.defenses import draws
from mipoison.defenses import ANCHORS, DEFENSES
from mipoison.protocols import Defense
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene
from mipoison.training import negative_psnr
from tests.mipoison.defenses.helpers import (
    MakeDecoder,
    few_starts,
    fitted,
    pictures,
    skip_without_library,
    vectors,
    view_of,
)

AROUND_ANOTHER_CENTRE = {"lfp"}
"""Defenses whose budget bounds the distance to another vector than the clean one (LFP: the reversed one)."""
NO_SAMPLE_SCOPE = {"lpa-shuffled"}
"""Defenses that couple the queries of a chunk by construction (beside those with a ``scope`` setting)."""

READS_SELDOM = {"codebook"}
"""Defenses in whose answers the image matters near a tie only (``test_codebook.py`` plants one)."""


TRAINED = ("lpa-amortised", "memguard", "purifier")
"""Defenses whose ``steps`` are those of a training."""


def few_steps(name: str) -> dict[str, int]:
    """A short training where there is one: no promise depends on how well a defense has learned."""
    return {"steps": 10} if name in TRAINED else {}


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        few_starts(patch)
        yield


@pytest.fixture
def queries(tiny_scene: Scene) -> tuple[Tensor, Tensor]:
    return tiny_scene.clean["attack_train"][:40].clone(), tiny_scene.split.attack_train.x_NCHW[:40].clone()


@pytest.fixture(scope="module")
def set_to(make_decoder: MakeDecoder) -> Callable[..., Defense]:
    """``set_to(name, **changes)``: a defense of five classes at other settings, fitted once for all tests."""
    found: dict[Any, Defense] = {}

    def fit(name: str, **changes: Any) -> Defense:
        key = (name, *sorted(changes.items()))
        if key not in found:
            found[key] = fitted(name, view_of(make_decoder(5), 5), **few_steps(name), **changes)
        return found[key]

    return fit


# ------------------------------------------------------------------------------------------- the contract


@pytest.fixture(scope="module")
def cases(tiny_scene: Scene) -> dict[str, DefenseCase]:
    return {
        name: DefenseCase(
            name,
            config,
            tiny_scene,
            couples=name in NO_SAMPLE_SCOPE or getattr(config(), "scope", "sample") != "sample",
            reads_seldom=name in READS_SELDOM,
            other_centre=name in AROUND_ANOTHER_CENTRE,
            changes=few_steps(name),
        )
        for name, config in DEFENSES.items()
    }


@pytest.mark.parametrize("check", DEFENSE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", DEFENSES)
def test_contract(name: str, check: Callable[[DefenseCase], None], cases: dict[str, DefenseCase]) -> None:
    skip_without_library(name)
    check(cases[name])


@pytest.mark.parametrize("name", DEFENSES)
def test_only_a_defense_of_its_name_is_fresh_by_default(name: str) -> None:
    assert DEFENSES[name]().make().fresh == (name == "noise-fresh")


@pytest.mark.parametrize("randomness", ["keyed", "fresh"])
@pytest.mark.parametrize(
    "name", [n for n in DEFENSES if "randomness" in DEFENSES[n].field_kinds() and n != "noise-fresh"]
)
def test_fresh_follows_the_configuration(name: str, randomness: str) -> None:
    """Of a defense that draws; one that draws nothing answers the same each time, whatever it is told."""
    defense = DEFENSES[name](randomness=randomness).make()  # type: ignore[call-arg]
    assert defense.fresh == (randomness == "fresh" and defense.draws)


DRAWING = [
    *((name, {"randomness": how}) for name in DEFENSES for how in ("keyed", "fresh")
      if "randomness" in DEFENSES[name].field_kinds() and name != "noise-fresh"),
    *((name, {field: 0}) for name in DEFENSES for field in ("budget", "rounds")
      if field in DEFENSES[name].field_kinds()),
    *(("mid", {"sampling": how}) for how in ("fresh", "mean")),
    *(("robust-privacy", {"noise": how}) for how in ("keyed", "common")),
    *(("stealthy-shield", more) for more in ({"label": "own"}, {"epsilon": 0.0})),
    *(("lfp", {"picks": "request", **more}) for more in ({}, {"budget": 0.0}, {"rounds": 0})),
    ("lpa", {"scope": "batch"}),
]  # fmt: skip
"""Settings that could decide whether anything is drawn, beside the defaults."""


@pytest.mark.parametrize(("name", "changes"), DRAWING)
def test_draws_is_what_happens_under_other_settings(
    name: str, changes: dict[str, Any], set_to: Callable[..., Defense]
) -> None:
    defense = set_to(name, **changes)
    assert draws(defense, vectors(30), pictures(30)) is defense.draws


@pytest.mark.parametrize(("name", "changes"), DRAWING)
def test_who_declares_not_to_read_the_image_does_not_under_other_settings(
    name: str, changes: dict[str, Any], set_to: Callable[..., Defense]
) -> None:
    defense = set_to(name, **changes)
    c, rng = vectors(30), QueryRandomness(content_keys(pictures(30), b"secret"))
    own, other = (defense.protect(c, pictures(30, s), defense.pick(c), rng=rng) for s in (0, 1))
    assert defense.reads_image or torch.equal(own, other)


@pytest.mark.parametrize(
    "name", [n for n, cls in DEFENSES.items() if "randomness" in cls.field_kinds() and n != "advexa"]
)
def test_other_keys_draw_other_noise(
    name: str, cases: dict[str, DefenseCase], queries: tuple[Tensor, Tensor]
) -> None:
    skip_without_library(name)
    c, x = queries
    defense = cases[name].defense
    picked = defense.pick(c)
    a, b = (
        defense.protect(c, x, picked, rng=QueryRandomness(content_keys(x, secret)))
        for secret in (b"one", b"two")
    )
    if name == "lfp":  # picks candidates, of which a coin of each secret touches some
        picked = ((a != c) | (b != c)).any(1)
        assert bool(picked.any())
    moved = (a[picked] != b[picked]).any(1).double().mean()
    assert moved > 0.9  # alignment may end in the same corner from two starts


def test_anchors_are_defenses() -> None:
    assert set(ANCHORS) <= set(DEFENSES)


def test_the_defenders_loss_trains_another_substitute(tiny_scene: Scene) -> None:
    """And nothing else: with one substitute the gradient of -PSNR points where that of MSE does."""
    lpa = {loss: DEFENSES["lpa"](loss=loss).make() for loss in ("mse", "psnr")}
    for defense in lpa.values():
        defense.fit(tiny_scene.view(), rng=generator(0, "test"))
    weights = {loss: torch.cat([p.flatten() for p in d.substitute.parameters()]) for loss, d in lpa.items()}
    assert not torch.equal(weights["mse"], weights["psnr"])
    decoder = lpa["mse"].substitute
    c, x = tiny_scene.clean["private_train"], tiny_scene.split.private_train.x_NCHW
    parameters = [p.requires_grad_(True) for p in decoder.parameters()]
    psnr = torch.autograd.grad(negative_psnr(decoder(c), x), parameters)
    for p in parameters:
        p.requires_grad_(False)
    both = [torch.cat([g.flatten() for g in gs]).double() for gs in (psnr, target_gradient(decoder, c, x))]
    assert torch.nn.functional.cosine_similarity(-both[0], both[1], dim=0) > 0.9999
