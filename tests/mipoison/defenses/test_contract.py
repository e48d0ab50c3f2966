"""The contract of everything in DEFENSES, then each defense against what it is supposed to do."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.alignment import target_gradient
from mipoison.defenses import ANCHORS, DEFENSES
from mipoison.defenses.pipeline import no_images
from mipoison.protocols import Defense
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene
from mipoison.simplex import label_of
from mipoison.training import negative_psnr
from tests.mipoison.defenses.helpers import (
    ULP,
    MakeDecoder,
    assert_released,
    few_starts,
    fitted,
    pictures,
    protect,
    vectors,
    view_of,
)

AROUND_ANOTHER_CENTRE = {"lfp"}
"""Defenses whose budget bounds the distance to another vector than the clean one (LFP: the reversed one)."""
NO_SAMPLE_SCOPE = {"lpa-shuffled"}
"""Defenses that couple the queries of a chunk by construction (beside those with a ``scope`` setting)."""

READS_SELDOM = {"codebook"}
"""Defenses in whose answers the image matters near a tie only (``test_codebook.py`` plants one)."""


class FittedAtDefaults(dict[str, Defense]):
    """Every defense at its defaults, fitted on a scene when it is asked for."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def __missing__(self, name: str) -> Defense:
        self[name] = fitted(name, self.scene.view())
        return self[name]


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        few_starts(patch)
        yield


@pytest.fixture(scope="module")
def defenses(tiny_scene: Scene) -> dict[str, Defense]:
    return FittedAtDefaults(tiny_scene)


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
            found[key] = fitted(name, view_of(make_decoder(5), 5), **changes)
        return found[key]

    return fit


class Watched(QueryRandomness):
    """Keyed random numbers that note whether any were drawn."""

    drawn = False

    def uniform(self, width: int, stream: str) -> Tensor:
        self.drawn = True
        return super().uniform(width, stream)


def draws(defense: Defense, c_NK: Tensor, x_NCHW: Tensor) -> bool:
    """Whether it draws while it protects vectors that are all picked."""
    rng = Watched(content_keys(x_NCHW, b"secret"))
    defense.protect(c_NK, x_NCHW, torch.ones(len(c_NK), dtype=torch.bool), rng=rng)
    return rng.drawn


def couples(name: str, defense: Defense) -> bool:
    return name in NO_SAMPLE_SCOPE or getattr(getattr(defense, "config", None), "scope", "sample") != "sample"


def budgeted() -> list[str]:
    return [
        n for n, cls in DEFENSES.items() if "budget" in cls.field_kinds() and n not in AROUND_ANOTHER_CENTRE
    ]


# ------------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("name", DEFENSES)
class TestContract:
    def test_rows_on_the_simplex_and_inputs_untouched(self, name, defenses, queries) -> None:
        c, x = queries
        before = (c.clone(), x.clone())
        picked = defenses[name].pick(c)
        kept = picked.clone()
        z = protect(defenses[name], c, x, picked)
        assert_released(z, c)
        assert torch.equal(c, before[0])
        assert torch.equal(x, before[1])
        assert torch.equal(picked, kept)
        assert z.data_ptr() != c.data_ptr()

    def test_hard_vectors(self, name, defenses) -> None:
        """One-hot, uniform, tied, tiny tails, and a row that float32 left off the simplex by a few ulp."""
        c = torch.tensor(
            [
                [0, 0, 1, 0, 0],
                [0.2] * 5,
                [0.5, 0.5, 0, 0, 0],
                [0.1, 0.4, 0.1, 0.4, 0],
                [1 - 3e-20, 1e-20, 1e-20, 1e-20, 0],
                [1e-38, 1, 1e-38, 1e-40, 0],
                [0.3333333, 0.3333333, 0.3333334, 0, 0],
            ]
        )
        z = protect(defenses[name], c, pictures(len(c)))
        assert_released(z, c)
        if defenses[name].keeps_label:
            assert torch.equal(label_of(z), label_of(c))

    def test_label_is_kept_where_promised(self, name, defenses, queries) -> None:
        c, x = queries
        assert isinstance(defenses[name].keeps_label, bool)
        if defenses[name].keeps_label:
            assert torch.equal(label_of(protect(defenses[name], c, x)), label_of(c))

    def test_label_is_kept_at_the_largest_settings(self, name, tiny_scene, queries) -> None:
        cls = DEFENSES[name]
        high = {k: knob.high for k, knob in cls.KNOBS.items() if knob.high is not None}
        changes = {k: int(v) if cls.KNOBS[k].integer else v for k, v in high.items()}
        defense = fitted(name, tiny_scene.view(), **changes)
        z = protect(defense, *queries)
        assert_released(z, queries[0])
        if defense.keeps_label:
            assert torch.equal(label_of(z), label_of(queries[0]))

    def test_repeats_under_the_same_keys(self, name, defenses, queries) -> None:
        assert torch.equal(protect(defenses[name], *queries), protect(defenses[name], *queries))

    def test_draws_is_what_happens(self, name, defenses, queries) -> None:
        assert draws(defenses[name], *queries) is defenses[name].draws

    def test_reads_image_is_what_happens(self, name, defenses, queries) -> None:
        """Under the same random numbers, other images change the answer of those alone that read them."""
        c, x = queries
        picked, rng = defenses[name].pick(c), QueryRandomness(content_keys(x, b"secret"))
        own, other = (defenses[name].protect(c, images, picked, rng=rng) for images in (x, x.roll(1, 0)))
        if name not in READS_SELDOM:
            assert bool((own != other).any()) is defenses[name].reads_image

    def test_who_does_not_read_the_image_needs_its_shape_alone(self, name, defenses, queries) -> None:
        if defenses[name].reads_image:
            pytest.skip("reads the image")
        c, x = queries
        rng = QueryRandomness(content_keys(x, b"secret"))
        z = defenses[name].protect(c, no_images(x), defenses[name].pick(c), rng=rng)
        assert torch.equal(z, protect(defenses[name], c, x))

    def test_repeats_when_fitted_again(self, name, defenses, tiny_scene, queries) -> None:
        again = fitted(name, tiny_scene.view())
        assert torch.equal(protect(again, *queries), protect(defenses[name], *queries))

    def test_other_queries_of_the_batch_do_not_matter(self, name, defenses, queries) -> None:
        if couples(name, defenses[name]):
            pytest.skip("couples the queries of a chunk by construction")
        c, x = queries
        whole = protect(defenses[name], c, x)
        order = torch.randperm(len(c), generator=generator(0, "order"))
        torch.testing.assert_close(
            protect(defenses[name], c[order], x[order]), whole[order], rtol=0, atol=1e-5
        )
        torch.testing.assert_close(protect(defenses[name], c[7:20], x[7:20]), whole[7:20], rtol=0, atol=1e-5)
        torch.testing.assert_close(protect(defenses[name], c[3:4], x[3:4]), whole[3:4], rtol=0, atol=1e-5)

    def test_pickles_after_fit(self, name, defenses, queries) -> None:
        again = pickle.loads(pickle.dumps(defenses[name]))
        assert torch.equal(protect(again, *queries), protect(defenses[name], *queries))

    def test_empty_batch_and_batch_of_one(self, name, defenses, queries) -> None:
        c, x = queries
        assert defenses[name].pick(c[:0]).shape == (0,)
        assert_released(protect(defenses[name], c[:0], x[:0]), c[:0])
        assert_released(protect(defenses[name], c[:1], x[:1]), c[:1])

    def test_pick_is_a_mask(self, name, defenses, queries) -> None:
        picked = defenses[name].pick(queries[0])
        assert picked.dtype == torch.bool
        assert picked.shape == (len(queries[0]),)
        assert torch.equal(picked, defenses[name].pick(queries[0]))

    def test_what_is_not_picked_stays(self, name, defenses, queries) -> None:
        c, x = queries
        picked = defenses[name].pick(c)
        if bool(picked.all()):
            pytest.skip("touches every vector")
        z = protect(defenses[name], c, x, picked)
        assert torch.equal(z[~picked], c[~picked])

    def test_works_inside_no_grad(self, name, defenses, queries) -> None:
        expected = protect(defenses[name], *queries)
        with torch.no_grad():
            assert torch.equal(protect(defenses[name], *queries), expected)

    @pytest.mark.parametrize("k", [2, pytest.param(3, marks=pytest.mark.long), 40])
    def test_other_numbers_of_classes(self, name, k, make_decoder) -> None:
        defense = fitted(name, view_of(make_decoder(k), k))
        c, x = vectors(25, k), pictures(25)
        z = protect(defense, c, x)
        assert_released(z, c)
        if defense.keeps_label:
            assert torch.equal(label_of(z), label_of(c))

    def test_alignment_is_a_cosine_or_nothing(self, name, defenses, queries) -> None:
        value = defenses[name].alignment(*queries)
        assert value is None or -1 <= value <= 1
        assert defenses[name].alignment(queries[0][:0], queries[1][:0]) is None

    def test_only_a_defense_of_its_name_is_fresh_by_default(self, name) -> None:
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


@pytest.mark.parametrize("budget", [1e-4, 0.01, 0.3, 1.5])
@pytest.mark.parametrize("name", budgeted())
def test_budget_is_respected(
    name: str, budget: float, tiny_scene: Scene, queries: tuple[Tensor, Tensor]
) -> None:
    defense = fitted(name, tiny_scene.view(), budget=budget)
    for c, x in (queries, (vectors(60, sharpness=6.0), pictures(60))):
        z = protect(defense, c, x)
        # c itself may miss the simplex by a few ulp, and is then replaced by itself divided by its sum.
        assert float((z.double() - c.double()).norm(dim=1).max()) <= budget + 2 * ULP


@pytest.mark.parametrize("name", budgeted())
def test_budget_zero_releases_the_clean_vectors_bit_for_bit(
    name: str, tiny_scene: Scene, queries: tuple[Tensor, Tensor]
) -> None:
    defense = fitted(name, tiny_scene.view(), budget=0.0)
    for c, x in (queries, (vectors(60, sharpness=40.0), pictures(60))):
        assert torch.equal(protect(defense, c, x), c)


@pytest.mark.parametrize(
    "name", [n for n, cls in DEFENSES.items() if "randomness" in cls.field_kinds() and n != "advexa"]
)
def test_other_keys_draw_other_noise(
    name: str, defenses: dict[str, Defense], queries: tuple[Tensor, Tensor]
) -> None:
    c, x = queries
    picked = defenses[name].pick(c)
    a, b = (
        defenses[name].protect(c, x, picked, rng=QueryRandomness(content_keys(x, secret)))
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
