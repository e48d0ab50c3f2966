"""MemGuard-style: the defender's membership classifier is left undecided, within the budget."""

import dataclasses

import pytest
import torch

from mipoison.defenses.memguard import MemGuard
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import ULP, fitted, pictures, protect, vectors, view_of


@pytest.fixture(scope="module")
def view(make_decoder):
    """Members are more confident than others."""
    public = vectors(200, sharpness=0.5, seed=2)
    return dataclasses.replace(
        view_of(make_decoder(5), 5),
        c_private_NK=vectors(100, sharpness=1.5, seed=1),
        x_private_NCHW=pictures(100),
        substitute_data=lambda config: (public, pictures(200)),
    )


def memguard(view, budget: float) -> MemGuard:
    defense = fitted("memguard", view, budget=budget)
    assert isinstance(defense, MemGuard)
    return defense


def test_the_classifier_knows_members_and_the_released_vectors_leave_it_undecided(view) -> None:
    defense = memguard(view, 0.5)
    members, others = view.c_private_NK, view.substitute_data(None)[0]
    assert float((defense.membership(members)[0] > 0).float().mean()) > 0.6
    assert float((defense.membership(others)[0] < 0).float().mean()) > 0.6
    for c in (members, others):
        z = protect(defense, c, pictures(len(c)))
        before, after = (defense.membership(v)[0].abs() for v in (c, z))
        assert bool((after <= before).all())
        assert float((after < 0.02).float().mean()) > 0.9
        assert torch.equal(label_of(z), label_of(c))


def test_the_noise_is_small_where_little_is_needed_and_bounded_where_much_is(view) -> None:
    defense, tight = memguard(view, 0.5), memguard(view, 0.02)
    c, x = view.c_private_NK, view.x_private_NCHW
    decided = defense.membership(c)[0].abs()
    wide = (protect(defense, c, x) - c).norm(dim=1)
    few, many = wide[decided.argsort()[:25]].mean(), wide[decided.argsort()[-25:]].mean()
    assert float(few) < 0.5 * float(many)
    z = protect(tight, c, x)
    assert float((z - c).norm(dim=1).max()) <= 0.02 + 2 * ULP
    assert float(tight.membership(z)[0].abs().mean()) < float(tight.membership(c)[0].abs().mean())


def test_the_membership_gradient_by_differences(view) -> None:
    defense = memguard(view, 0.5)
    defense.classifier.double()
    c = vectors(10, sharpness=0.7).double()
    direction = torch.randn(10, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    up, down = (defense.membership(c + s * 1e-6 * direction)[0] for s in (1, -1))
    slope = (defense.membership(c)[1] * direction).sum(1)
    torch.testing.assert_close(slope, (up - down) / 2e-6, rtol=1e-5, atol=1e-7)
