"""Prototypes: against classes whose widest spheres are known, and the same behind whatever keeps labels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mipoison.attacks import ATTACKS
from mipoison.attacks.prototypes import ImagePrior, PrototypeConfig, Prototypes
from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.deployment import deploy
from mipoison.randomness import generator
from mipoison.scene import Scene
from mipoison.service import MeteredOracle
from mipoison.simplex import label_of

SCALE = torch.tensor([0.06, 0.03], dtype=torch.float64)
"""Standard deviation of the first two pixels of OWN, in which coefficients z are (x - 0.5) / SCALE."""
CORNERS = torch.cartesian_prod(torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 1.0])).double()
OWN = torch.cat([0.5 + SCALE * CORNERS, torch.full((4, 2), 0.5)], 1).float().reshape(4, 1, 2, 2)
"""The attacker's images: two independent pixels, two that are constant. Nothing is clamped where |z| < 8."""
CENTER, WIDTH = torch.tensor([0.6, -0.4], dtype=torch.float64), 1.2
NORMAL, OFFSET = torch.tensor([math.cos(0.5), math.sin(0.5)], dtype=torch.float64), 0.2
FINE = PrototypeConfig(components=9, points=128, radius=0.1, growth=1.05, queries=129 * 150)
Labels = Callable[[Tensor], Tensor]


def coefficients(x_NCHW: Tensor) -> Tensor:
    return (x_NCHW.flatten(1)[:, :2].double() - 0.5) / SCALE


def ball(z_N2: Tensor) -> Tensor:
    return ((z_N2 - CENTER).norm(dim=1) < WIDTH).long()


def half_plane(z_N2: Tensor) -> Tensor:
    return (z_N2 @ NORMAL > OFFSET).long()


def oracle(labels: Labels, n_classes: int = 2) -> MeteredOracle:
    """An API whose vectors have the labels that a function gives to coefficients."""
    return MeteredOracle(lambda x: torch.eye(n_classes)[labels(coefficients(x))] * 0.8 + 0.1, n_classes)


def search(
    labels: Labels, config: PrototypeConfig = FINE, n_classes: int = 2, seed: int = 0
) -> tuple[Prototypes, MeteredOracle]:
    asked = oracle(labels, n_classes)
    return config.make().search(asked, OWN, rng=generator(seed, "prototypes")), asked


@pytest.mark.parametrize("seed", range(3))
def test_of_a_ball_the_centre_and_the_radius_are_found(seed: int) -> None:
    """No sphere around a point is in the ball that is wider than the ball."""
    found, _ = search(ball, seed=seed)
    inside = found.classes[1]
    assert inside is not None
    assert 0.9 * WIDTH < inside.radius <= WIDTH
    off = float((coefficients(inside.image_CHW[None])[0] - CENTER).norm())
    assert off < WIDTH - inside.radius + 0.1


@pytest.mark.parametrize(("label", "sign"), [(0, -1), (1, 1)])
@pytest.mark.parametrize("reach", [1.0, 1.5])
def test_of_a_half_plane_the_corner_of_the_box_is_found(label: int, sign: int, reach: float) -> None:
    """Of the box of centres a corner is farthest from the line; so far reaches the widest clear sphere."""
    found, _ = search(half_plane, dataclasses.replace(FINE, reach=reach))
    one = found.classes[label]
    assert one is not None
    widest = sign * float(sign * reach * NORMAL.sum() - OFFSET)
    assert 0.9 * widest < one.radius < 1.05 * widest  # a thin cap of a sphere may be missed
    z_2 = coefficients(one.image_CHW[None])[0]
    assert sign * float(z_2 @ NORMAL - OFFSET) > 0.9 * widest
    assert float(z_2.abs().max()) <= reach + 1e-5


@pytest.mark.parametrize("labels", [ball, half_plane])
@pytest.mark.parametrize("queries", [33, 100, 1000])
def test_queries_are_counted_and_bounded_and_the_prototype_has_its_label(
    labels: Labels, queries: int
) -> None:
    config = PrototypeConfig(queries=queries, starts=70)
    found, asked = search(labels, config)
    assert found.missing == ()
    assert found.queries == asked.queries
    assert found.start_queries <= 70
    for k, one in enumerate(found.classes):
        assert one is not None
        assert 32 <= one.queries <= queries
        assert one.image_CHW.shape == OWN.shape[1:]
        assert one.image_CHW.dtype == torch.float32
        assert labels(coefficients(one.image_CHW[None])).tolist() == [k]


def test_a_share_of_the_sphere_may_be_enough() -> None:
    """Of a sphere of radius r around the corner acos(d / r) / pi is beyond the line: a quarter at 1.41 d."""
    found, _ = search(half_plane, dataclasses.replace(FINE, clear=0.75))
    one = found.classes[1]
    assert one is not None
    d = float(1.5 * NORMAL.sum() - OFFSET)
    assert 1.3 * d < one.radius < 2.5 * d  # many spheres are tried, and some have fewer points beyond it


def test_labels_that_are_flipped_at_random_stop_a_strict_search_alone() -> None:
    """Of 32 points one in ten has another label: hardly a sphere is clear, and most are by four fifths."""
    rng = generator(0, "flips")

    def flipped(z_N2: Tensor) -> Tensor:
        return torch.where(torch.rand(len(z_N2), generator=rng) < 0.1, 1 - ball(z_N2), ball(z_N2))

    strict, lenient = (
        search(flipped, PrototypeConfig(radius=0.1, growth=1.2, queries=3000, clear=clear))[0].classes[1]
        for clear in (1.0, 0.8)
    )
    assert strict is not None
    assert lenient is not None
    assert lenient.radius > max(0.8 * WIDTH, 2 * strict.radius)


def test_a_class_that_nothing_is_of_is_said_to_be_missing() -> None:
    found, asked = search(ball, PrototypeConfig(queries=100, starts=300), n_classes=3)
    assert found.missing == (2,)
    assert found.classes[2] is None
    assert found.start_queries == 300
    assert found.queries == asked.queries


def test_a_class_that_everything_is_of_ends_when_its_sphere_holds_the_box() -> None:
    config = PrototypeConfig(radius=0.5, growth=1.5, reach=1.5, starts=64, queries=100_000)
    found, asked = search(lambda z: torch.zeros(len(z), dtype=torch.int64), config)
    one = found.classes[0]
    assert one is not None
    widest = 3 * math.sqrt(2)
    spheres = math.floor(math.log(widest / 0.5) / math.log(1.5)) + 1
    assert one.queries == 32 * spheres
    assert one.radius == pytest.approx(0.5 * 1.5 ** (spheres - 1))
    assert asked.queries == 64 + one.queries


def test_without_a_clear_sphere_the_radius_is_zero() -> None:
    """The first sphere is wider than the ball; what it shows has the label all the same."""
    one = search(ball, PrototypeConfig(radius=3.0, queries=400))[0].classes[1]
    assert one is not None
    assert one.radius == 0
    assert ball(coefficients(one.image_CHW[None])).tolist() == [1]


def test_each_class_has_questions_of_its_own() -> None:
    """What lies beyond the ball is one class or two: the ball's search is the same."""

    def three(z_N2: Tensor) -> Tensor:
        return torch.where(ball(z_N2) == 1, 1, torch.where(z_N2[:, 0] > 0, 2, 0))

    config = PrototypeConfig(queries=500, starts=64)
    one, other = (search(labels, config, 3)[0].classes[1] for labels in (ball, three))
    assert one is not None
    assert other is not None
    assert torch.equal(one.image_CHW, other.image_CHW)
    assert (one.radius, one.queries) == (other.radius, other.queries)


def test_the_generator_alone_decides() -> None:
    config = PrototypeConfig(queries=200)
    first, again, other = (search(half_plane, config, seed=seed)[0].classes[0] for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first.image_CHW, again.image_CHW)
    assert not torch.equal(first.image_CHW, other.image_CHW)


def test_the_prior_is_the_whitened_leading_components() -> None:
    """Against a singular value decomposition, up to signs; and clamped."""
    x_NCHW = torch.rand(40, 1, 2, 3, generator=generator(0, "own"))
    prior = ImagePrior(x_NCHW, 3)
    x_ND = x_NCHW.flatten(1).double()
    _, s_R, v_RD = torch.linalg.svd(x_ND - x_ND.mean(0), full_matrices=False)
    expected_PD = (s_R[:3, None] / math.sqrt(40) * v_RD[:3]).flip(0)
    torch.testing.assert_close(prior.basis_PD.abs(), expected_PD.abs(), atol=1e-9, rtol=0)
    white_NP = (x_ND - prior.mean_D) @ torch.linalg.pinv(prior.basis_PD)
    torch.testing.assert_close(
        white_NP.mT @ white_NP / 40, torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0
    )
    far = prior.images(100 * torch.eye(3, dtype=torch.float64))
    assert set(far.unique().tolist()) <= {0.0, 1.0}
    assert ImagePrior(OWN, 9).components == 2
    assert ImagePrior(x_NCHW[:4], 9).components == 3  # more pixels than images


def behind(scene: Scene, defense: str, **knobs: object) -> Prototypes:
    service = deploy(scene, defense, DEFENSES[defense](**knobs)).service
    asked = MeteredOracle(service.session(), scene.split.n_classes)
    search = PrototypeConfig(queries=200, components=8, starts=256).make()
    return search.search(asked, scene.split.attack_train.x_NCHW, rng=generator(0, "prototypes"))


def images(found: Prototypes) -> list[tuple[bytes, float, int] | None]:
    return [
        None if one is None else (one.image_CHW.numpy().tobytes(), one.radius, one.queries)
        for one in found.classes
    ]


def test_prototypes_are_bitwise_the_same_behind_whatever_keeps_labels(tiny_scene: Scene) -> None:
    none = behind(tiny_scene, "none")
    assert any(one is not None and one.radius > 0 for one in none.classes)
    for defense, knobs in (
        ("label-only", {}),
        ("rounding", {"decimals": 1}),
        ("lpa", {"budget": 0.01, "rounds": 1, "search": "descent"}),
        ("noise", {"budget": 0.05}),
    ):
        assert DEFENSES[defense](**knobs).make().keeps_label
        assert images(behind(tiny_scene, defense, **knobs)) == images(none), defense


def test_a_defense_that_flips_labels_changes_them(tiny_scene: Scene) -> None:
    flipped = behind(tiny_scene, "lfp", ratio=0.5, threshold=1.0, rounds=0)
    assert images(flipped) != images(behind(tiny_scene, "none"))


def test_the_victim_gives_each_prototype_its_label(tiny_scene: Scene) -> None:
    service = deploy(tiny_scene, "none", DEFENSES["none"]()).service
    for k, one in enumerate(behind(tiny_scene, "none").classes):
        if one is not None:
            assert label_of(service.clean(one.image_CHW[None])).tolist() == [k]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"components": 0}, "components = 0: must be between 1 and 4096"),
        ({"points": 1}, "points = 1: must be between 2 and 4096"),
        ({"radius": 0.0}, r"radius = 0.0: must be above 0"),
        ({"growth": 1.0}, r"growth = 1.0: must be above 1 and at most 10"),
        ({"clear": 0.4}, r"clear = 0.4: must be between 0.5 and 1"),
        ({"step": 1.5}, r"step = 1.5: must be above 0 and at most 1"),
        ({"queries": 32}, r"queries = 32: must be between 33 and 1,000,000.*raise queries or lower points"),
        ({"queries": 100, "points": 100}, r"queries = 100: must be between 101"),
        ({"starts": 0}, "starts = 0: must be between 1 and 1,000,000"),
        ({"reach": -1.0}, r"reach = -1.0: must be above 0 and at most 10"),
        ({"radius": math.inf}, "radius = inf: must be finite"),
    ],
)
def test_settings_that_are_not_possible_say_the_bound(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"PrototypeConfig\.{said}"):
        PrototypeConfig(**changes)  # type: ignore[arg-type]


def test_images_that_make_no_prior_are_refused() -> None:
    for x_NCHW, said in ((OWN[:1], "at least 2 images"), (OWN[:1].repeat(5, 1, 1, 1), "got 5 equal ones")):
        with pytest.raises(ValueError, match=said):
            PrototypeConfig().make().search(oracle(ball), x_NCHW, rng=generator(0))


def test_it_is_no_attacker_of_a_suite() -> None:
    assert not any(isinstance(config, PrototypeConfig) for config in ATTACKS.values())
