"""LPA's search with restarts: against slow loops, against the best of many random vectors, and its parts."""

import copy

import pytest
import torch
from torch import Tensor

from mipoison.alignment import make_engine
from mipoison.config import digest
from mipoison.defenses.lpa import LPA, LPAConfig
from mipoison.defenses.restarts import COUNT, Starts, climb, complementary, draw_starts
from mipoison.randomness import generator
from mipoison.scene import Scene
from mipoison.simplex import label_of, project_release
from tests.mipoison.alignment.helpers import slow
from tests.mipoison.defenses.helpers import (
    ULP,
    MakeDecoder,
    assert_released,
    fitted,
    interior,
    pictures,
    protect,
    vectors,
    view_of,
)

BUDGET = 0.1


def cosines(defense: LPA, z_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """One double backward a sample, in float64."""
    target = [t.double() for t in defense.target]
    decoder = copy.deepcopy(defense.substitute).double()
    return slow(decoder, target, z_NK.double(), x_NCHW.double(), "cosine").cosine_N


def best_random(defense: LPA, c_NK: Tensor, x_NCHW: Tensor, n: int) -> Tensor:
    """The largest cosine of n random vectors within the budget: moves along the simplex, and in log space."""
    rng, engine = generator(0, "random vectors"), make_engine("auto", defense.substitute, defense.target)
    best_N = torch.full((len(c_NK),), -torch.inf)
    for i in range(n):
        noise_NK = torch.randn(c_NK.shape, generator=rng).double()
        if i % 2:
            moved_NK = torch.softmax(c_NK.double().log() + (3, 10)[i // 2 % 2] * noise_NK, 1)
        else:
            noise_NK -= noise_NK.mean(1, keepdim=True)
            moved_NK = c_NK.double() + (1, 0.3)[i // 2 % 2] * BUDGET * noise_NK / noise_NK.norm(
                dim=1, keepdim=True
            )
        z_NK = project_release(moved_NK, c_NK, BUDGET)
        best_N = torch.maximum(best_N, engine.align(z_NK, x_NCHW).cosine_N)
    return best_N


def test_restarts_align_better_than_the_best_of_many_random_vectors(tiny_scene: Scene) -> None:
    """The descent of Algorithm 1 does not: this is what the restarts are for."""
    c, x = (part[:24] for part in (tiny_scene.clean["private_train"], tiny_scene.split.private_train.x_NCHW))
    found = {}
    for search in ("restarts", "descent"):
        defense = fitted("lpa", tiny_scene.view(), search=search, budget=BUDGET)
        assert isinstance(defense, LPA)
        z = protect(defense, c, x)
        assert_released(z, c)
        assert torch.equal(label_of(z), label_of(c))
        assert float((z.double() - c.double()).norm(dim=1).max()) <= BUDGET + 2 * ULP
        found[search] = float(cosines(defense, z, x).mean())
    bar = float(best_random(defense, c, x, 100).mean())
    assert found["restarts"] > bar
    assert found["descent"] < bar


@pytest.mark.parametrize("objective", ["cosine", "distance"])
@pytest.mark.parametrize("features", ["log", "raw"])
@pytest.mark.parametrize("step", [0.2, 2.0])
def test_no_row_ends_worse_than_it_starts(
    make_decoder: MakeDecoder, features: str, objective: str, step: float
) -> None:
    """By values in float64, one sample at a time; most rows end better, whatever the step."""
    decoder = make_decoder(5, width=4, features=features)
    c, x = vectors(20), pictures(20)
    defense = fitted("lpa", view_of(decoder, 5), search="descent")
    assert isinstance(defense, LPA)
    engine = make_engine("auto", decoder, defense.target, objective=objective)
    start = project_release(c.double() + 0.02 * torch.randn(20, 5, generator=generator(0)), c, BUDGET)
    end = climb(engine, c, x, start, BUDGET, rounds=8, step=step, keep_label=True)
    wide, target = copy.deepcopy(decoder).double(), [t.double() for t in defense.target]
    before, after = (
        slow(wide, target, z.double(), x.double(), objective).value_N.flatten() for z in (start, end)
    )
    assert bool((after <= before + 1e-6 * before.abs()).all())
    assert float((after < before - 1e-7 * before.abs()).double().mean()) > 0.7
    assert torch.equal(climb(engine, c, x, start, BUDGET, rounds=0, step=step, keep_label=True), start)


def test_starts_by_hand() -> None:
    """Kept, moved, replaced and zero scores; the label's takes the rest."""
    c = interior(2)  # 0.4 at index 1, else 0.15
    c[1] = torch.tensor([0.1, 0.1, 0.6, 0.1, 0.1])
    starts = Starts(
        torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0]]).double(),
        torch.tensor([[0.0, 0.0, 0.2, 0.0, 0.05]]).double(),
    )
    found = starts.vectors(0, c, 1.0, keep_label=True)
    expected = [[0.15, 0.45, 0.2, 0.0, 0.2], [0.1, 0.1, 0.65, 0.0, 0.15]]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)
    each = starts.joined(Starts(torch.ones(1, 5).double(), torch.zeros(1, 5).double()))
    assert len(each) == 2
    mixed = each.vectors(torch.tensor([1, 0]), c, 1.0, keep_label=True)
    torch.testing.assert_close(mixed, torch.stack([c[0], torch.tensor(expected[1])]), rtol=0, atol=1e-6)


def test_drawn_starts_lie_where_they_should() -> None:
    starts = draw_starts(3000, 5, BUDGET, generator(0))
    along, apart = slice(0, 1000), slice(1000, None)
    assert bool((starts.keep_MK[along] == 1).all())
    lengths = starts.add_MK[along].norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, BUDGET))
    assert float(starts.add_MK[along].sum(1).abs().max()) < 1e-12
    kept, add = starts.keep_MK[apart] == 1, starts.add_MK[apart]
    assert float(kept.double().mean()) == pytest.approx(0.25, abs=0.02)
    assert bool((add[kept] == 0).all())
    assert float(((add == 0) & ~kept).double().mean()) == pytest.approx(0.25, abs=0.02)
    decades = torch.log10(add[add > 0] / BUDGET)
    assert -6 <= float(decades.min()) < -5.9
    assert -0.1 < float(decades.max()) <= 0


def test_complementary_columns_by_a_slow_loop() -> None:
    value = torch.rand(12, 9, generator=generator(0)).double()
    value[3, 4] = torch.nan
    columns, chosen = value.nan_to_num(nan=float("inf")).tolist(), list[int]()
    for _ in range(4):
        means = [sum(min(row[j] for j in [*chosen, i]) for row in columns) for i in range(len(columns[0]))]
        chosen.append(min(range(len(means)), key=means.__getitem__))
    assert complementary(value, 4).tolist() == chosen


def test_the_batch_s_own_gradient_aligns_further_than_by_the_descent(tiny_scene: Scene) -> None:
    """The set-wise objective of Eq. 7."""
    c, x = (part[:24] for part in (tiny_scene.clean["private_train"], tiny_scene.split.private_train.x_NCHW))
    found = {}
    for search in ("restarts", "descent"):
        defense = fitted("lpa", tiny_scene.view(), search=search, scope="batch", budget=BUDGET)
        found[search] = defense.alignment(protect(defense, c, x), x)
    assert found["restarts"] > found["descent"]


def test_records_of_before_are_of_the_descent() -> None:
    old = {k: v for k, v in LPAConfig(budget=0.003).flat().items() if k != "search"}
    assert LPAConfig.recorded(old) == LPAConfig(budget=0.003, search="descent")
    assert LPAConfig.recorded(LPAConfig().flat()).search == "restarts"
    named = {"class": "LPAConfig", "budget": 0.003}  # what the digest was made of before
    assert LPAConfig(budget=0.003, search="descent").digest() == digest(named)[:12]
    assert LPAConfig(budget=0.003).digest() != digest(named)[:12]


def test_starts_are_part_of_the_state_where_they_are_used(tiny_scene: Scene) -> None:
    for settings, there in (({}, True), ({"search": "descent"}, False), ({"budget": 0.0}, False)):
        state = fitted("lpa", tiny_scene.view(), **settings).state()
        assert ("starts.keep" in state) == there
        assert not there or state["starts.add"].shape == (COUNT, tiny_scene.split.n_classes)
