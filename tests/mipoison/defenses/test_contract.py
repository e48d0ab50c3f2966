"""The contract of everything in DEFENSES, then each defense against what it is supposed to do."""

import dataclasses
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.alignment import target_gradient
from mipoison.defenses import ANCHORS, DEFENSES
from mipoison.defenses.label_only import LabelOnly
from mipoison.defenses.lfp import LFP, LFPConfig, pick_candidates, reverse_ranks
from mipoison.defenses.lpa import LPA, LPAConfig, unit_rows
from mipoison.defenses.noise import NoiseConfig, TangentNoise, random_direction
from mipoison.defenses.none import NoDefense
from mipoison.defenses.rounding import Rounding, RoundingConfig, apportion
from mipoison.models.classifier import ClassifierConfig
from mipoison.models.inversion import InversionNet
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene
from mipoison.simplex import label_of
from mipoison.training import negative_psnr

CPU = torch.device("cpu")
MakeDecoder = Callable[..., InversionNet]

AROUND_ANOTHER_CENTRE = {"lfp"}
"""Defenses whose budget bounds the distance to another vector than the clean one (LFP: the reversed one)."""
NO_SAMPLE_SCOPE = {"lpa-shuffled"}
"""Defenses that couple the queries of a chunk by construction (beside those with a ``scope`` setting)."""

ULP = 2.4e-7  # what project_release promises in float32


def view_of(decoder: InversionNet, n_classes: int, n: int = 30) -> DefenderView:
    """A defender's side without any training."""
    c, x = vectors(n, n_classes, seed=5), pictures(n, seed=5)
    return DefenderView(
        x_private_NCHW=x,
        c_private_NK=c,
        y_private_N=c.argmax(1),
        substitute=lambda config: decoder,
        substitute_data=lambda config: (c, x),
        n_classes=n_classes,
        device=CPU,
        victim=ClassifierConfig(width=4, hidden=8, steps=10, batch=16),
    )


def vectors(n: int, k: int = 5, seed: int = 0, sharpness: float = 2.0) -> Tensor:
    return torch.softmax(sharpness * torch.randn(n, k, generator=generator(seed, "c")), 1)


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 16, 16, generator=generator(seed, "x"))


def fitted(name: str, view: DefenderView, **changes: Any) -> Defense:
    defense: Defense = DEFENSES[name](**changes).make()  # type: ignore[attr-defined]
    defense.fit(view, rng=generator(0, "defense", name))
    return defense


def protect(defense: Defense, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor | None = None) -> Tensor:
    picked_N = defense.pick(c_NK) if picked_N is None else picked_N
    return defense.protect(c_NK, x_NCHW, picked_N, rng=QueryRandomness(content_keys(x_NCHW, b"secret")))


@pytest.fixture(scope="module")
def defenses(tiny_scene: Scene) -> dict[str, Defense]:
    """Every defense at its defaults, fitted on the tiny scene."""
    return {name: fitted(name, tiny_scene.view()) for name in DEFENSES}


@pytest.fixture
def queries(tiny_scene: Scene) -> tuple[Tensor, Tensor]:
    return tiny_scene.clean["attack_train"].clone(), tiny_scene.split.attack_train.x_NCHW.clone()


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


def assert_released(z_NK: Tensor, c_NK: Tensor) -> None:
    assert z_NK.shape == c_NK.shape
    assert z_NK.dtype == c_NK.dtype
    assert z_NK.device == c_NK.device
    assert not z_NK.requires_grad
    assert bool((z_NK >= 0).all())
    assert bool(((z_NK.double().sum(1) - 1).abs() < 1e-5).all())


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

    @pytest.mark.parametrize("k", [2, 3, 40])
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

    def test_fresh_follows_the_configuration(self, name, tiny_scene) -> None:
        for randomness in ("keyed", "fresh"):
            if "randomness" not in DEFENSES[name].field_kinds():
                assert not DEFENSES[name]().make().fresh  # type: ignore[attr-defined]
            elif name == "noise-fresh":  # its name is its setting
                assert DEFENSES[name]().make().fresh  # type: ignore[attr-defined]
            elif name != "advexa":  # draws nothing
                assert DEFENSES[name](randomness=randomness).make().fresh == (randomness == "fresh")  # type: ignore


DRAWING = [
    *((name, {"randomness": how}) for name in DEFENSES for how in ("keyed", "fresh")
      if "randomness" in DEFENSES[name].field_kinds() and name != "noise-fresh"),
    *((name, {field: 0}) for name in DEFENSES for field in ("budget", "rounds")
      if field in DEFENSES[name].field_kinds()),
    *(("mid", {"sampling": how}) for how in ("fresh", "mean")),
    *(("lfp", {"picks": "request", **more}) for more in ({}, {"budget": 0.0}, {"rounds": 0})),
    ("lpa", {"scope": "batch"}),
]  # fmt: skip
"""Settings that could decide whether anything is drawn, beside the defaults."""


@pytest.mark.parametrize(("name", "changes"), DRAWING)
def test_draws_is_what_happens_under_other_settings(
    name: str, changes: dict[str, Any], make_decoder: MakeDecoder
) -> None:
    view = view_of(make_decoder(5), 5)
    defense = fitted(name, view, **changes)
    assert draws(defense, vectors(30), pictures(30)) is defense.draws


@pytest.mark.parametrize("budget", [1e-4, 0.01, 0.3, 1.5])
@pytest.mark.parametrize("name", budgeted())
def test_budget_is_respected(
    name: str, budget: float, tiny_scene: Scene, queries: tuple[Tensor, Tensor]
) -> None:
    for c, x in (queries, (vectors(60, sharpness=6.0), pictures(60))):
        z = protect(fitted(name, tiny_scene.view(), budget=budget), c, x)
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


# ----------------------------------------------------------------------------------------- none, label-only


def test_none_releases_a_copy() -> None:
    c, x = vectors(9), pictures(9)
    assert torch.equal(protect(NoDefense(), c, x), c)


def test_label_only_is_one_hot_of_the_first_maximum() -> None:
    c = torch.tensor([[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]])
    assert protect(LabelOnly(), c, pictures(2)).tolist() == [[1, 0, 0], [0, 0, 1]]


# ------------------------------------------------------------------------------------------------ rounding


def slow_apportion(row: list[float], units: int) -> list[int]:
    """Largest remainders (Hamilton), in exact fractions."""
    from fractions import Fraction

    exact = [Fraction(v) for v in row]
    quota = [v * units / sum(exact) for v in exact]
    whole = [math.floor(q) for q in quota]
    order = sorted(range(len(row)), key=lambda j: (-(quota[j] - whole[j]), j))
    for j in order[: units - sum(whole)]:
        whole[j] += 1
    return whole


@pytest.mark.parametrize("units", [1, 10, 100, 1000])
@pytest.mark.parametrize("k", [2, 5, 40])
def test_apportion_matches_exact_fractions(units: int, k: int) -> None:
    c = vectors(40, k).double()
    assert (apportion(c, units) * units).round().long().tolist() == [
        slow_apportion(row, units) for row in c.tolist()
    ]


def test_apportion_breaks_ties_by_position() -> None:
    assert apportion(torch.tensor([[0.25, 0.25, 0.25, 0.25]]), 2).tolist() == [[0.5, 0.5, 0.0, 0.0]]


@pytest.mark.parametrize("decimals", range(7))
@pytest.mark.parametrize("k", [2, 5, 40])
def test_rounding_releases_multiples_close_by(decimals: int, k: int) -> None:
    c, x = vectors(200, k), pictures(200)
    unit = 10.0**-decimals
    z = protect(Rounding(RoundingConfig(decimals=decimals)), c, x)
    multiples = z.double() / unit
    # The label's tied rivals are one ulp below their multiple; a float32 itself is half an ulp off.
    assert float((multiples - multiples.round()).abs().max()) <= 1.3e-7 / unit
    assert torch.equal(multiples.round().sum(1), torch.full((200,), 10.0**decimals, dtype=torch.float64))
    assert (
        float((z.double() - c.double()).abs().max()) < unit + 2 * ULP
    )  # each score moves by less than a unit
    assert float((z.double() - c.double()).norm(dim=1).max()) < math.sqrt(k) * (unit + 2 * ULP)
    again = protect(Rounding(RoundingConfig(decimals=decimals)), z, x)
    assert torch.equal(again, z)  # idempotent


def test_rounding_to_no_decimals_is_label_only() -> None:
    c, x = vectors(50), pictures(50)
    assert torch.equal(protect(Rounding(RoundingConfig(decimals=0)), c, x), protect(LabelOnly(), c, x))


# --------------------------------------------------------------------------------------------------- noise


def interior(n: int, k: int = 5) -> Tensor:
    """Rows well inside the simplex, with a clear label."""
    c = torch.full((n, k), 0.15)
    c[:, 1] = 1 - 0.15 * (k - 1)
    return c


def test_noise_has_the_length_of_the_budget_in_the_interior() -> None:
    c, x = interior(200), pictures(200)
    for budget in (1e-3, 0.01, 0.1):
        moved = protect(TangentNoise(NoiseConfig(budget=budget)), c.double(), x) - c.double()
        torch.testing.assert_close(
            moved.norm(dim=1), torch.full((200,), budget, dtype=torch.float64), rtol=1e-4, atol=0
        )
        single = protect(TangentNoise(NoiseConfig(budget=budget)), c, x).double() - c.double()
        assert float((single.norm(dim=1) - budget).abs().max()) < 2 * ULP


def test_noise_directions_are_uniform_on_the_tangent_sphere() -> None:
    n, k = 20_000, 5
    rng = QueryRandomness(torch.arange(n))
    d = random_direction(torch.empty(n, k), rng, "tangent noise")
    assert float(d.sum(1).abs().max()) < 1e-12
    torch.testing.assert_close(d.norm(dim=1), torch.ones(n, dtype=torch.float64))
    assert float(d.mean(0).norm()) < 4 / math.sqrt(n)
    covariance = d.T @ d / n
    expected = (torch.eye(k, dtype=torch.float64) - 1 / k) / (k - 1)
    assert float((covariance - expected).abs().max()) < 4 * 0.3 / math.sqrt(n)
    # On a sphere in three dimensions each coordinate is uniform (Archimedes): K = 4 has such a tangent space.
    import scipy.stats

    axis = torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64) / math.sqrt(2)
    height = random_direction(torch.empty(n, 4), rng, "s") @ axis
    assert scipy.stats.kstest(height.numpy(), "uniform", args=(-1, 2)).pvalue > 1e-4


def test_noise_is_the_budget_times_its_direction() -> None:
    c, x = interior(20).double(), pictures(20)
    rng = QueryRandomness(content_keys(x, b"secret"))
    moved = protect(TangentNoise(NoiseConfig(budget=0.05)), c, x) - c
    torch.testing.assert_close(moved / 0.05, random_direction(c, rng, "tangent noise"), rtol=0, atol=1e-6)


# ----------------------------------------------------------------------------------------------------- LPA


def lpa(view: DefenderView, **changes: Any) -> LPA:
    defense = fitted("lpa", view, **changes)
    assert isinstance(defense, LPA)
    return defense


@pytest.fixture(scope="module")
def easy(make_decoder: MakeDecoder) -> tuple[DefenderView, Tensor, Tensor]:
    """A random decoder and vectors inside the simplex, where alignment has room."""
    return view_of(make_decoder(5, width=4), 5), vectors(40, sharpness=0.7), pictures(40)


@pytest.mark.parametrize("features", ["log", "raw"])
@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_lpa_rises_against_its_random_start_and_flipped_falls(
    make_decoder: MakeDecoder, scope: str, features: str
) -> None:
    view = view_of(make_decoder(5, width=4, features=features), 5)
    c, x = vectors(40, sharpness=0.3), pictures(40)  # no score near 0, where log features jump
    judge = lpa(view, scope=scope)
    settings = dict(budget=0.05, scope=scope, step=0.3)

    def cosines(**changes: Any) -> Tensor:
        return judge.align(protect(lpa(view, **settings, **changes), c, x), x).cosine_N

    start, few, many = cosines(rounds=0), cosines(rounds=3), cosines(rounds=15)
    flipped = cosines(rounds=15, target="flipped")
    assert float(few.mean()) > float(start.mean())
    assert float(many.mean()) > float(few.mean())
    assert float((many > start).float().mean()) > 0.9
    assert float(flipped.mean()) < float(start.mean())
    assert float((flipped < start).float().mean()) > 0.9


def test_lpa_distance_objective_lowers_the_distance(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    """Poi_MSE: ||t - g||^2 a sample, from gradients that plain autograd computes."""
    view, c, x = easy
    settings = dict(budget=0.05, objective="distance", step=0.3)

    def distance(defense: LPA, z: Tensor) -> float:
        from mipoison.alignment import parameter_gradient

        total = 0.0
        for i in range(len(z)):
            g = parameter_gradient(defense.substitute, z[i : i + 1], x[i : i + 1])
            total += sum(float((t - a).square().sum()) for t, a in zip(defense.target, g, strict=True))
        return total

    start, aligned = lpa(view, rounds=0, **settings), lpa(view, rounds=15, **settings)
    assert distance(aligned, protect(aligned, c, x)) < distance(start, protect(start, c, x))


def test_lpa_without_rounds_is_matched_noise(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, _, x = easy
    c = interior(40).double()
    z = lpa(view, rounds=0, budget=0.05)
    moved = protect(z, c, x) - c
    direction = random_direction(c, QueryRandomness(content_keys(x, b"secret")), "lpa start")
    torch.testing.assert_close(moved / 0.05, direction, rtol=0, atol=1e-6)


def test_lpa_takes_one_step_by_hand(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    """Inside the simplex and the ball the first step is d0 - alpha * budget * u."""
    view, _, x = easy
    c, budget, step = interior(40), 0.05, 0.5
    defense = lpa(view, rounds=1, budget=budget, step=step)
    start = protect(lpa(view, rounds=0, budget=budget), c, x)
    gradient = defense.align(start, x).gradient_NK.double()
    gradient -= gradient.mean(1, keepdim=True)
    wish = start.double() - step * budget * gradient / gradient.norm(dim=1, keepdim=True)
    distance = (wish - c).norm(dim=1)
    inside = distance < budget * 0.999
    assert int(inside.sum()) > 5
    torch.testing.assert_close(protect(defense, c, x)[inside].double(), wish[inside], rtol=0, atol=1e-6)


def test_lpa_may_flip_labels_when_told_so(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, _, x = easy
    c = torch.full((40, 5), 0.2)
    c[:, 2] += 0.002
    c /= c.sum(1, keepdim=True)
    free, kept = lpa(view, keep_label=False, budget=0.05), lpa(view, budget=0.05)
    assert not free.keeps_label
    assert kept.keeps_label
    assert not torch.equal(label_of(protect(free, c, x)), label_of(c))
    assert torch.equal(label_of(protect(kept, c, x)), label_of(c))


def test_lpa_targets(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, _, _ = easy
    private, flipped, random = (lpa(view, target=t) for t in ("private", "flipped", "random"))
    for a, b in zip(private.target, flipped.target, strict=True):
        assert torch.equal(a, -b)
    flat = torch.cat([t.flatten() for t in random.target])
    assert abs(float(flat.mean())) < 0.2
    assert float(flat.std()) == pytest.approx(1, abs=0.15)
    other: LPA = LPAConfig(target="random").make()
    other.fit(view, rng=generator(1, "defense", "lpa"))
    assert not torch.equal(other.target[0], random.target[0])


def test_lpa_asks_for_the_substitute_that_its_settings_name(make_decoder: MakeDecoder) -> None:
    asked = []

    def substitute(config: Any) -> InversionNet:
        asked.append(config)
        return make_decoder(5)

    view = dataclasses.replace(view_of(make_decoder(5), 5), substitute=substitute)
    for name in ("lpa", "lfp"):
        fitted(name, view, substitute_features="raw", substitute_extra_blocks=1, substitute_data="all")
    for config in asked:
        assert (config.features, config.extra_blocks, config.data) == ("raw", 1, "all")
    assert len(asked) == 2


def test_the_defender_s_loss_does_not_change_lpa(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    """Negative PSNR of the whole set has the same direction as MSE: every cosine is equal."""
    view, c, x = easy
    assert torch.equal(protect(lpa(view, loss="mse"), c, x), protect(lpa(view, loss="psnr"), c, x))


def test_unit_rows() -> None:
    rows = torch.tensor(
        [[3.0, 4.0], [0.0, 0.0], [1e30, 0.0], [1e-30, 1e-30], [float("nan"), 1.0], [float("inf"), 1.0]]
    )
    unit = unit_rows(rows)
    expected = [[0.6, 0.8], [0, 0], [1, 0], [0.5**0.5, 0.5**0.5], [0, 1], [1, 0]]
    torch.testing.assert_close(unit, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


# ----------------------------------------------------------------------------------------------------- LFP


def slow_pick(c: list[list[float]], ratio: float, threshold: float) -> set[int]:
    """Below the threshold first: round after round, each label gives its least confident one left."""
    wanted = round(ratio * len(c))
    picked: list[int] = []
    for side in (False, True):
        queues: dict[int, list[int]] = {}
        for i in sorted(range(len(c)), key=lambda i: (max(c[i]), i)):
            if (max(c[i]) >= threshold) == side:
                queues.setdefault(c[i].index(max(c[i])), []).append(i)
        while any(queues.values()):
            turn = sorted((q.pop(0) for q in queues.values() if q), key=lambda i: (max(c[i]), i))
            picked += turn
    return set(picked[:wanted])


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.25, 0.5, 0.97])
@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("n", [1, 7, 50, 101])
def test_lfp_picks_as_the_slow_reference(n: int, ratio: float, threshold: float) -> None:
    c = vectors(n, 4, seed=n)
    c[: n // 3] = c[0]  # ties
    picked = pick_candidates(c, ratio, threshold)
    assert int(picked.sum()) == round(ratio * n)
    assert set(picked.nonzero().flatten().tolist()) == slow_pick(c.tolist(), ratio, threshold)


def test_lfp_picks_are_balanced_over_the_labels() -> None:
    c = vectors(400, 4)
    picked = pick_candidates(c, 0.1, 1.0)
    counts = torch.bincount(label_of(c)[picked], minlength=4)
    assert int(counts.sum()) == 40
    assert int(counts.max() - counts.min()) <= 1
    for label in range(4):
        own = label_of(c) == label
        chosen, left = c[own & picked].amax(1), c[own & ~picked].amax(1)
        assert float(chosen.max()) <= float(left.min())  # least confident first


def test_lfp_tops_up_above_the_threshold_only_when_it_must() -> None:
    c = vectors(100, 4)
    top = c.amax(1)
    threshold = float(top.sort().values[10])  # ten candidates
    picked = pick_candidates(c, 0.3, threshold)
    assert int(picked.sum()) == 30
    assert bool(picked[top < threshold].all())


@pytest.mark.parametrize(
    ("row", "reversed_row", "swapped_row"),
    [
        ([0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5], [0.05, 0.5, 0.15, 0.3]),
        ([0.1, 0.6, 0.3], [0.6, 0.1, 0.3], [0.3, 0.1, 0.6]),
        ([0.7, 0.3], [0.3, 0.7], [0.3, 0.7]),
    ],
)
def test_lfp_reversal_by_hand(row: list[float], reversed_row: list[float], swapped_row: list[float]) -> None:
    # Swap, first row: exchange the top two (.3 .5 .15 .05), keep .5, reverse .3 .15 .05 over classes 0, 2, 3.
    c = torch.tensor([row])
    torch.testing.assert_close(reverse_ranks(c, swap=False), torch.tensor([reversed_row]))
    torch.testing.assert_close(reverse_ranks(c, swap=True), torch.tensor([swapped_row]))


def test_lfp_reversal_reverses_every_rank() -> None:
    c = vectors(50, 6)
    z = reverse_ranks(c, swap=False)
    assert torch.equal(z.sort(1).values, c.sort(1).values)
    assert torch.equal(z.argsort(1), c.argsort(1, descending=True))
    swapped = reverse_ranks(c, swap=True)
    assert torch.equal(label_of(swapped), c.argsort(1, descending=True)[:, 1])
    assert torch.equal(swapped.sort(1).values, c.sort(1).values)


@pytest.mark.parametrize("swap", [False, True])
def test_lfp_stays_within_its_budget_of_the_reversed_vector(
    easy: tuple[DefenderView, Tensor, Tensor], swap: bool
) -> None:
    view, c, x = easy
    defense = fitted("lfp", view, picks="request", ratio=0.4, swap=swap, budget=0.03)
    picked = defense.pick(c)
    assert int(picked.sum()) == 16
    z, centre = protect(defense, c, x), reverse_ranks(c[picked], swap)
    assert torch.equal(z[~picked], c[~picked])
    assert float((z[picked] - centre).norm(dim=1).max()) <= 0.03 + 2 * ULP
    assert torch.equal(label_of(z[picked]), label_of(centre))
    assert bool((label_of(z[picked]) != label_of(c[picked])).all())


@pytest.mark.parametrize("changes", [{"budget": 0.0}, {"rounds": 0}])
def test_lfp_without_fine_tuning_only_reverses(
    easy: tuple[DefenderView, Tensor, Tensor], changes: dict
) -> None:
    view, c, x = easy
    defense = fitted("lfp", view, picks="request", ratio=0.4, **changes)
    picked = defense.pick(c)
    z = protect(defense, c, x)
    assert torch.equal(z[picked], reverse_ranks(c[picked], swap=False))


def test_lfp_fine_tuning_aligns_candidates_and_clean_rest_together(
    easy: tuple[DefenderView, Tensor, Tensor],
) -> None:
    view, c, x = easy
    plain = fitted("lfp", view, picks="request", ratio=0.4, budget=0.0)
    tuned = fitted("lfp", view, picks="request", ratio=0.4, budget=0.1, rounds=15, step=0.3)
    assert isinstance(tuned, LFP)
    before, after = (tuned.alignment(protect(d, c, x), x) for d in (plain, tuned))
    assert before is not None
    assert after is not None
    assert after > before


def test_lfp_keeps_a_chunk_without_candidates(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, c, x = easy
    defense = LFPConfig().make()
    defense.fit(view, rng=generator(0))
    assert torch.equal(protect(defense, c, x, torch.zeros(len(c), dtype=torch.bool)), c)


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
