"""The arithmetic of a unit releases what the unit does, for every input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.protocols import Defense
from mipoison.randomness import QueryRandomness, generator
from mipoison.serving.arithmetic import BELOW, NAMES, SCALE, arithmetic_of, strictly_labelled
from mipoison.serving.unit import Unit
from mipoison.simplex import keep_label, label_of

SHAPE = (1, 16, 16)


def vectors(n: int, k: int) -> Tensor:
    """Random vectors flat and sharp, ties between scores and remainders, the corners and the middle."""
    rng = generator(n, "vectors", k)
    parts = [torch.softmax(s * torch.randn(n, k, generator=rng), 1) for s in (0.1, 3.0, 12.0)]
    grid = torch.randint(1, 5, (n, k), generator=rng).float()
    tied = torch.zeros(n, k)
    tied[:, :2] = 0.5
    return torch.cat(
        [*parts, grid / grid.sum(1, keepdim=True), tied, torch.eye(k), torch.full((1, k), 1 / k)]
    )


def arguments(defense: Defense, inputs: tuple[str, ...], c_NK: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """What the arithmetic takes for these vectors, and what the defense itself releases."""
    n, k = c_NK.shape
    x_NCHW = torch.rand(n, *SHAPE, generator=generator(k, "x"))
    keys = QueryRandomness(torch.arange(n, dtype=torch.int64) * 7919)
    released_NK = defense.protect(c_NK, x_NCHW, torch.ones(n, dtype=torch.bool), rng=keys)
    given = {"c": c_NK, "x": x_NCHW, "g": keys.normal(k, "tangent noise")}
    return tuple(given[name] for name in inputs), released_NK


CASES = [
    ("rounding", {"decimals": 0}), ("rounding", {"decimals": 1}), ("rounding", {"decimals": 3}),
    ("rounding", {"steps": 7}), ("noise", {"budget": 0.05}), ("noise", {"budget": 1.2}),
    ("noise", {"budget": 0.0}),
    ("noise", {"budget": 0.05, "law": "gaussian"}), ("noise-fresh", {"budget": 0.3, "law": "gaussian"}),
]  # fmt: skip


def test_the_number_below() -> None:
    """Of random numbers, of all powers of two of scores, and of both neighbours of them."""
    t = torch.cat([torch.rand(100_000, generator=generator(0)).clamp_min(1e-6), 2.0 ** -torch.arange(30)])
    t = torch.cat([t, torch.nextafter(t, torch.ones(())), torch.nextafter(t, torch.zeros(()))])
    assert torch.equal((t.double() * BELOW / SCALE).float(), torch.nextafter(t, torch.zeros_like(t)))


@pytest.mark.parametrize("k", [2, 5, 100])
def test_strict_labels_are_those_of_the_simplex(k: int) -> None:
    c_NK = vectors(30, k)
    z_NK = torch.cat([c_NK[1:], c_NK[:1]])
    z_NK = z_NK.maximum(z_NK.amax(1, keepdim=True) * torch.nn.functional.one_hot(label_of(c_NK), k))
    assert torch.equal(strictly_labelled(z_NK, c_NK), keep_label(z_NK, c_NK))
    assert torch.equal(strictly_labelled(c_NK, c_NK), c_NK)  # ties and all


@pytest.mark.parametrize("k", [2, 5, 100])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_rounding_and_noise(name: str, settings: dict[str, float], k: int) -> None:
    defense = DEFENSES[name](**settings).make()
    module = arithmetic_of(name, defense)
    given, released_NK = arguments(defense, module.inputs, vectors(50, k))
    found_NK = module(*given)
    if name == "rounding":
        assert torch.equal(found_NK, released_NK)
    else:
        assert torch.allclose(found_NK, released_NK, rtol=0, atol=3e-7)
    assert torch.equal(label_of(found_NK), label_of(given[0]))


def test_a_fitted_codebook(units: dict[str, Unit], queries: Tensor) -> None:
    unit = units["codebook"]
    module = arithmetic_of("codebook", unit.defense)
    c_NK = vectors(50, unit.n_classes)
    x_NCHW = queries[torch.arange(len(c_NK)) % len(queries)]
    released_NK = unit.defense.protect(c_NK, x_NCHW, torch.ones(len(c_NK), dtype=torch.bool), rng=None)  # type: ignore[arg-type]
    assert torch.equal(module(c_NK, x_NCHW), released_NK)


def test_the_rest_says_why_not(units: dict[str, Unit]) -> None:
    for name, unit in units.items():
        if name in NAMES:
            assert arithmetic_of(name, unit.defense).inputs[0] == "c"
            continue
        with pytest.raises(ConfigError, match="cannot be exported: it is not arithmetic") as caught:
            arithmetic_of(name, unit.defense)
        assert "\n" not in str(caught.value)
