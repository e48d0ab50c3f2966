"""The exported amortised defense releases what the defense does, from a file, for any number of queries."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mipoison.defenses.lpa_amortised import LPAAmortisedConfig
from mipoison.models.generator import GeneratorNet
from mipoison.randomness import QueryRandomness, generator
from mipoison.serving.export import AmortisedForward, export_amortised
from mipoison.simplex import label_of, project_release, project_release_inside
from mipoison.training import seeded


def vectors(n: int, k: int, sharpness: float, seed: int = 0) -> torch.Tensor:
    return torch.softmax(sharpness * torch.randn(n, k, generator=generator(seed, "test")), 1)


@pytest.mark.parametrize("k", [2, 5, 100])
@pytest.mark.parametrize("budget", [1e-4, 0.05, 1.2])
@pytest.mark.parametrize("sharpness", [1.0, 12.0])
def test_a_wish_within_the_budget_needs_no_search(k: int, budget: float, sharpness: float) -> None:
    c_NK = vectors(200, k, sharpness)
    d_NK = torch.randn(200, k, generator=generator(1, "test"), dtype=torch.float64)
    d_NK = d_NK - d_NK.mean(1, keepdim=True)
    wish_NK = c_NK.double() + budget * d_NK / d_NK.norm(dim=1, keepdim=True)
    exact_NK = project_release(wish_NK, c_NK, budget)
    found_NK = project_release_inside(wish_NK, c_NK)
    assert torch.allclose(found_NK, exact_NK, rtol=0, atol=3e-7)
    assert torch.equal(label_of(found_NK), label_of(c_NK))


def fitted(budget: float = 0.05, k: int = 5) -> object:
    defense = LPAAmortisedConfig(budget=budget).make()
    with seeded(generator(0, "net"), torch.device("cpu")):
        net = GeneratorNet(torch.full((k,), -3.0), torch.ones(k), hidden=16, latent=4)
    defense.generator = net.requires_grad_(False).eval()
    return defense


@pytest.mark.parametrize("n", [1, 3, 128])
def test_the_file_releases_what_the_defense_does(n: int, tmp_path: Path) -> None:
    defense = fitted()
    export_amortised(defense, tmp_path / "lpa.pt2")  # type: ignore[arg-type]
    program = torch.export.load(tmp_path / "lpa.pt2").module()
    c_NK, keys = vectors(n, 5, 4.0), QueryRandomness(torch.arange(n))
    x_NCHW = torch.zeros(n, 1, 16, 16)
    expected_NK = defense.protect(c_NK, x_NCHW, defense.pick(c_NK), rng=keys)  # type: ignore[attr-defined]
    noise_NZ = keys.normal(4, "amortised").float()
    found_NK = program(c_NK, noise_NZ)
    assert found_NK.dtype == torch.float32
    assert torch.allclose(found_NK, expected_NK, rtol=0, atol=3e-7)
    assert torch.equal(label_of(found_NK), label_of(c_NK))
    assert not torch.equal(found_NK, c_NK)


def test_without_a_budget_there_is_nothing_to_export() -> None:
    with pytest.raises(ValueError, match="budget = 0"):
        AmortisedForward(fitted().generator, 0.0)  # type: ignore[attr-defined]
