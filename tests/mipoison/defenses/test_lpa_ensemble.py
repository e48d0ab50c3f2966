"""Ensemble LPA: asks for the right substitutes, gives each one vote, and aligns with all of them."""

import dataclasses
from typing import Any

import pytest
import torch

from mipoison.defenses.descent import unit_rows
from mipoison.defenses.lpa_ensemble import LPAEnsemble
from tests.mipoison.defenses.helpers import fitted, pictures, protect, vectors, view_of


@pytest.fixture(scope="module")
def view(make_decoder):
    decoders = {
        (f, b): make_decoder(5, width=4, features=f, extra_blocks=b, seed=b)
        for f in ("log", "raw")
        for b in (0, 1)
    }
    return dataclasses.replace(
        view_of(decoders["log", 0], 5),
        substitute=lambda config: decoders[config.features, config.extra_blocks],
    )


def ensemble(view, **changes: Any) -> LPAEnsemble:
    defense = fitted("lpa-ensemble", view, **changes)
    assert isinstance(defense, LPAEnsemble)
    return defense


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ("features", {("log", 0), ("raw", 0)}),
        ("architectures", {("log", 0), ("log", 1)}),
        ("all", {("log", 0), ("log", 1), ("raw", 0), ("raw", 1)}),
    ],
)
def test_members_and_their_votes(view, members: str, expected: set[tuple[str, int]]) -> None:
    defense = ensemble(view, members=members, substitute_data="D2")
    asked = defense.config.substitutes()
    assert {(s.features, s.extra_blocks) for s in asked} == expected
    assert len(asked) == len(expected)
    assert {s.data for s in asked} == {"D2"}
    c, x = vectors(20), pictures(20)
    total = torch.zeros(20, 5, dtype=torch.float64)
    for config in asked:
        lpa: Any = fitted(
            "lpa", view, substitute_features=config.features, substitute_extra_blocks=config.extra_blocks
        )
        g = lpa.align(c, x).gradient_NK.double()
        total += unit_rows(g - g.mean(1, keepdim=True))
    torch.testing.assert_close(defense.gradient(c, x), total / len(asked), rtol=1e-9, atol=1e-9)


def test_the_mean_cosine_rises_and_every_member_has_its_say(view) -> None:
    c, x = vectors(40, sharpness=0.3), pictures(40)
    judge = ensemble(view)
    start, few, many = (protect(ensemble(view, budget=0.05, rounds=r, step=0.3), c, x) for r in (0, 3, 15))
    assert judge.alignment(start, x) < judge.alignment(few, x) < judge.alignment(many, x)
    for mine, other in (("log", "raw"), ("raw", "log")):
        member = fitted("lpa", view, substitute_features=mine)
        single = fitted("lpa", view, budget=0.05, rounds=15, step=0.3, substitute_features=other)
        assert member.alignment(many, x) > member.alignment(protect(single, c, x), x)
