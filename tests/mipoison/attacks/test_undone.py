"""Attackers that know a defense's settings read the vectors before it, where the formula can be solved."""

from __future__ import annotations

import pickle

import pytest
import torch

from mipoison.attacks.feature_sets import FEATURE_SETS
from mipoison.attacks.mixtures import MixturesConfig
from mipoison.attacks.undone import READ, undone_sets
from mipoison.defenses import DEFENSES
from mipoison.defenses.reverse_sigmoid import reverse_sigmoid, undone
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator

SHAPE = (1, 8, 8)


def sure(n: int, seed: int = 0) -> torch.Tensor:
    """Vectors (n, 4), float64, whose scores beside the label's lie below 0.003."""
    small = 10 ** (-2.6 - 5 * torch.rand(n, 4, generator=generator(seed, "sure"), dtype=torch.float64))
    label = torch.arange(n)[:, None] % 4
    return small.scatter(1, label, 1 - small.scatter(1, label, 0.0).sum(1, keepdim=True))


@pytest.mark.parametrize(("beta", "gamma"), [(0.1, 0.2), (0.3, 0.1), (0.3, 0.2)])
def test_a_sure_vector_is_found_again(beta: float, gamma: float) -> None:
    clean = sure(200)
    found = undone(reverse_sigmoid(clean, beta, gamma), beta, gamma)
    torch.testing.assert_close(found.log(), clean.log(), rtol=0, atol=2e-3)


def test_of_two_scores_with_one_image_it_is_the_smaller() -> None:
    clean = torch.tensor([[0.97, 0.02, 0.01]], dtype=torch.float64)
    released = reverse_sigmoid(clean, 0.1, 0.2)
    found = undone(released, 0.1, 0.2)
    assert bool((found[0, 1:] < clean[0, 1:]).all())
    again = reverse_sigmoid(found, 0.1, 0.2)
    torch.testing.assert_close(again, released, rtol=0, atol=1e-4)


def test_a_large_score_has_one_image_and_is_found_again() -> None:
    clean = torch.tensor([[0.6, 0.4 - 2e-4, 2e-4], [0.7, 2e-4, 0.3 - 2e-4]], dtype=torch.float64)
    found = undone(reverse_sigmoid(clean, 0.1, 0.2), 0.1, 0.2)
    torch.testing.assert_close(found, clean, rtol=1e-2, atol=1e-4)


def test_any_vector_gives_a_vector_of_its_label() -> None:
    eye, even = torch.eye(4), torch.full((1, 4), 0.25)
    released = torch.cat([eye, even, torch.softmax(torch.randn(50, 4, generator=generator(1, "any")), 1)])
    found = undone(released, 1.0, 5.0)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(55, dtype=torch.float64))
    assert torch.equal(found.max(1).values, found.gather(1, released.argmax(1)[:, None])[:, 0])


def test_the_sets_read_what_is_read_of_clean_vectors() -> None:
    known = ThreatModel("reverse-sigmoid", {"beta": 0.1, "gamma": 0.2}, SHAPE)
    clean, sets = sure(60), undone_sets(known)
    assert set(sets) == {f"undone-{name}" for name in READ}
    released = reverse_sigmoid(clean, 0.1, 0.2)
    for name in READ:
        read = pickle.loads(pickle.dumps(sets[f"undone-{name}"]))
        torch.testing.assert_close(read(released), FEATURE_SETS[name](clean), rtol=0, atol=0.01)


@pytest.mark.parametrize("name", [None, "none", "noise", "rounding", "of-a-plug-in"])
def test_other_defenses_are_not_undone(name: str | None) -> None:
    assert undone_sets(ThreatModel(name, {}, SHAPE)) == {}


def test_only_the_attacker_on_two_levels_undoes() -> None:
    known = ThreatModel("reverse-sigmoid", DEFENSES["reverse-sigmoid"]().flat(), SHAPE)
    two, one = (len(MixturesConfig(levels=n).make().feature_sets(known)) for n in (2, 1))
    assert two == one + len(READ)
