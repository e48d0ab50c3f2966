"""Tail noise: the label's score and the sum stay, the tail moves by the budget."""

import torch

from mipoison.defenses.tail_noise import TailNoise, TailNoiseConfig, tail_direction
from mipoison.randomness import QueryRandomness
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import ULP, interior, pictures, protect, vectors


def test_the_label_s_score_and_the_sum_stay() -> None:
    for sharpness in (0.5, 2.0, 30.0):
        c, x = vectors(300, sharpness=sharpness), pictures(300)
        for budget in (1e-4, 0.01, 0.3, 1.5):
            z = protect(TailNoise(TailNoiseConfig(budget=budget)), c, x)
            label = label_of(c)[:, None]
            assert torch.equal(z.gather(1, label), c.gather(1, label))
            assert torch.equal(label_of(z), label_of(c))
            assert float((z.double().sum(1) - c.double().sum(1)).abs().max()) < 2 * ULP
            assert float((z.double() - c.double()).norm(dim=1).max()) <= budget + ULP
            assert bool((z >= 0).all())


def test_inside_the_simplex_the_noise_is_as_long_as_the_budget() -> None:
    c, x = interior(200), pictures(200)
    moved = protect(TailNoise(TailNoiseConfig(budget=0.05)), c.double(), x) - c.double()
    torch.testing.assert_close(
        moved.norm(dim=1), torch.full((200,), 0.05, dtype=torch.float64), rtol=1e-9, atol=0
    )


def test_directions_are_uniform_on_the_sphere_of_the_tail() -> None:
    n, k = 20_000, 4
    c = torch.tensor([0.1, 0.7, 0.1, 0.1]).expand(n, k)
    d = tail_direction(c, QueryRandomness(torch.arange(n)))
    assert bool((d[:, 1] == 0).all())
    assert float(d.mean(0).norm()) < 4 / n**0.5
    mask = torch.tensor([1.0, 0, 1, 1], dtype=torch.float64)
    expected = (torch.diag(mask) - torch.outer(mask, mask) / 3) / 2
    assert float((d.T @ d / n - expected).abs().max()) < 4 * 0.4 / n**0.5


def test_two_classes_and_an_empty_tail_have_nothing_to_move() -> None:
    noise = TailNoise(TailNoiseConfig(budget=0.1))
    for c in (vectors(20, 2), torch.eye(5)[[0, 3]]):
        assert torch.equal(protect(noise, c, pictures(len(c))), c)


def test_a_tail_below_the_budget_goes_to_one_class() -> None:
    c = torch.tensor([[1 - 4e-6, 1e-6, 1e-6, 1e-6, 1e-6]])
    z = protect(TailNoise(TailNoiseConfig(budget=0.1)), c, pictures(1))
    assert sorted(z[0, 1:].tolist())[:3] == [0, 0, 0]
    assert abs(float(z[0, 1:].max()) - 4e-6) < 1e-11
