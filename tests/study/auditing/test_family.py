"""The family is named right for this project's own defenses around a classifier that is not trained here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from audited_pools import plain_probes
from torch import nn

from mipoison.config import Plain
from mipoison.defenses import DEFENSES
from mipoison.service import DefendedService
from study.auditing.family import FAMILIES, family_of
from study.auditing.plan import near_copies
from study.auditing.probes import Probes, probe


class Bands(nn.Module):
    """Logits that grow with the brightness of five bands of a 10x10 image, through a bend."""

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        bands = x_NCHW.mean((1, 3)).unflatten(1, (5, 2)).mean(2)
        return 12 * torch.tanh(2 * bands) + 3 * bands.roll(1, 1) ** 2


def seen(defense: str, knobs: dict[str, Plain]) -> Probes:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 160, (300, 10, 10, 1))
    for i in range(300):
        x[i, 2 * (i % 5) : 2 * (i % 5) + 2] += int(rng.integers(10, 95))
    pixels = x.astype(np.uint8)
    service = DefendedService(
        Bands(),
        DEFENSES[defense].from_flat(knobs).make(),
        secret=b"0123456789abcdef",
        n_classes=5,
        device=torch.device("cpu"),
    )
    ask = service.session()

    def asked(images: np.ndarray) -> np.ndarray:
        found: np.ndarray = ask(torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255).double().numpy()
        return found

    c = asked(pixels)
    copies = np.stack([near_copies(image, rng) for image in pixels[:24]])
    near = np.stack([c[:24], asked(copies[:, 0]), asked(copies[:, 1])], 1)
    return probe(c, np.stack([asked(pixels[:24]) for _ in range(3)], 1), near, 9)


@pytest.mark.parametrize(
    ("defense", "knobs", "family"),
    [
        ("none", {}, "smooth"),
        ("temperature", {"temperature": 4.0}, "smooth"),
        ("label-only", {}, "label-only"),
        ("rounding", {"steps": 10}, "grid"),
        ("rounding", {"steps": 640}, "grid"),
        ("noise", {"budget": 0.003}, "noise"),
        ("noise", {"budget": 0.3}, "noise"),
        ("tail-noise", {"budget": 0.02}, "noise"),
        ("noise-fresh", {"budget": 0.001}, "noise"),
        ("top-k", {"k": 2}, "top-k"),
    ],
)
def test_defenses(defense: str, knobs: dict[str, Any], family: str) -> None:
    found = family_of(seen(defense, knobs))
    assert found.name == family, found.evidence
    assert FAMILIES[family] in str(found)


def test_label_flipping_is_no_poisoning() -> None:
    """The same rough moves: of the unsure images alone, and of all."""
    rng = np.random.default_rng(0)
    near, smooth = np.repeat(rng.dirichlet(np.full(5, 0.3), 24)[:, None], 3, 1), 1e-5 * rng.normal(size=5)
    unsure = near[:, 0].max(1).argsort()[:12]
    near[:, 1], near[:, 2] = near[:, 1] + smooth, near[:, 2] + 2 * smooth
    everywhere = near + 0.01 * rng.normal(size=near.shape)
    flipped = near.copy()
    flipped[unsure] = everywhere[unsure]
    flipped[unsure[:3], 1:] = np.roll(flipped[unsure[:3], 1:], 1, 2)
    c, repeats = rng.dirichlet(np.full(5, 0.3), 300), near[:, :1].repeat(2, 1)
    everywhere[unsure[0], 1] += 0.05  # longer than the others: no noise
    found = {name: probe(c, repeats, p, 9) for name, p in (("flip", flipped), ("all", everywhere))}
    assert family_of(found["flip"]).name == "label-flipping"
    assert family_of(found["all"]).name == "poisoning"
    assert (found["flip"].steady, found["all"].steady) == (1.0, pytest.approx(0.1, abs=0.1))
    assert found["flip"].relabelled >= 1


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({}, "smooth"),
        ({"distinct": 30, "most_of_label": 4}, "codebook"),
        ({"distinct": 10, "most_of_label": 1}, "codebook"),
        ({"roughness": 1.8, "jump": 0.004, "largest_jump": 0.02, "zeros": 0.01, "steady": 0.5}, "poisoning"),
        ({"roughness": 1.8, "jump": 0.004, "largest_jump": 0.02, "zeros": 0.01}, "label-flipping"),
        ({"roughness": 1.8, "largest_jump": 0.9, "steady": 0.5, "relabelled": 1}, "label-flipping"),
        ({"broken": 0.05, "largest_jump": 0.05}, "label-flipping"),
        ({"broken": 0.05, "largest_jump": 0.05, "tied": 7}, "top-k"),
        ({"roughness": 1.8, "jump": 0.004, "largest_jump": 0.006, "zeros": 0.01}, "noise"),
        ({"zeros": 0.3}, "poisoning"),
        ({"roughness": 1.8, "jump": 0.004, "zeros": 0.4}, "noise"),
        ({"largest_jump": 0.8}, "label-flipping"),
        ({"tied": 7}, "top-k"),
        ({"repeat_distance": 0.01}, "noise"),
        ({"roughness": 1.8, "moved": 0.1}, "smooth"),
        ({"roughness": None, "moved": 0.0, "steps": 1, "distinct": 10, "most_of_label": 1}, "label-only"),
    ],
)
def test_rules(changes: dict[str, Any], family: str) -> None:
    found = family_of(plain_probes(**changes))
    assert found.name == family
    assert "\n" not in found.evidence
