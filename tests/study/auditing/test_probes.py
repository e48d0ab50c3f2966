"""What is read off answers: grids, repeats, sums, and whether answers move smoothly with the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mipoison.defenses.rounding import apportion
from study.auditing.probes import grid_steps, probe


def vectors(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.3), n)


@pytest.mark.parametrize("steps", [2, 3, 7, 10, 46, 100, 352, 1000, 9999])
def test_grids_are_found_as_float32_and_as_printed_decimals(steps: int) -> None:
    c = apportion(torch.from_numpy(vectors(300, 6)), steps)
    assert grid_steps(c.float().double().numpy()) == steps
    if steps in (10, 100, 1000):
        assert grid_steps(np.array([[float(f"{v:.3f}") for v in row] for row in c.tolist()])) == steps


def test_what_lies_on_no_grid() -> None:
    assert grid_steps(vectors(50, 6)) is None
    assert grid_steps(np.eye(4)) == 1
    assert grid_steps(np.array([[0.5, 0.5], [1.5, 0.0]])) is None  # no scores of a simplex
    assert grid_steps(np.array([[0.25, 0.75], [0.25, 0.75 + 1.37e-5]])) is None
    assert grid_steps(np.array([[0.4, 0.6], [0.1734, 0.8266], [0.2102, 0.7898]])) == 5000
    assert grid_steps(np.array([[0.17345678, 0.82654322]])) is None


def near(c: np.ndarray, move: np.ndarray, bend: float) -> np.ndarray:
    return np.stack([c, c + move, c + 2 * move + bend * move[::-1]], 1)


def test_smooth_and_rough_answers() -> None:
    c = vectors(40, 5)
    move = 1e-3 * np.random.default_rng(1).normal(size=(10, 5))
    repeats = np.stack([c[:10]] * 3, 1)
    smooth = probe(c, repeats, near(c[:10], move, 0.0), 9)
    rough = probe(c, repeats, near(c[:10], move, 1.0), 9)
    assert smooth.roughness is not None
    assert rough.roughness is not None
    assert smooth.roughness < 1e-6
    assert rough.roughness > 0.5
    assert smooth.jump == pytest.approx(float(np.median(np.linalg.norm(move, axis=1))))
    assert (smooth.steady, smooth.broken, smooth.relabelled) == (1.0, 0.0, 0)
    assert rough.steady < 1
    assert 1e-4 < rough.broken <= rough.largest_jump
    assert smooth.repeat_distance == 0
    assert smooth.moved == 1
    still = probe(c, repeats, near(c[:10], 0 * move, 0.0), 9)
    assert (still.roughness, still.moved) == (None, 0)
    assert (smooth.distinct, smooth.most_of_label) == (40, int(np.bincount(c.argmax(1)).max()))


def test_digits_that_no_attacker_reads_are_counted() -> None:
    c = vectors(40, 5)
    repeats, still = c[:4, None], near(c[:4], 0 * c[:4], 0)
    assert probe(c, repeats, still, 17).hidden == 0
    hundredths = apportion(torch.from_numpy(c), 100).numpy()
    assert probe(hundredths, repeats, still, 17).hidden == 0
    twice = np.repeat(hundredths[:20], 2, 0)
    assert probe(twice, repeats, still, 17).hidden == 0
    marked = twice + 1e-13 * np.arange(40)[:, None]
    assert (probe(marked, repeats, still, 17).steps, probe(marked, repeats, still, 17).hidden) == (100, 20)
    free = np.random.default_rng(1).dirichlet(np.full(5, 9.0), 20)
    off = np.repeat(free, 2, 0) + 1e-14 * np.arange(40)[:, None]
    assert (probe(off, repeats, still, 17).steps, probe(off, repeats, still, 17).hidden) == (None, 20)


def test_repeats_sums_zeros_and_ties() -> None:
    c = vectors(40, 5)
    repeats = np.stack([c[:4], c[:4] + 0.01], 1)
    found = probe(c * 1.1, repeats, near(c[:4], 0 * c[:4], 0), 3)
    assert found.repeat_distance == pytest.approx(0.01 * 5**0.5)
    assert found.sum_error == pytest.approx(0.1)
    assert not found.negative
    assert probe(c - 0.5, repeats, near(c[:4], 0 * c[:4], 0), 3).negative
    top = np.sort(c, 1)
    top[:, :3] = (top[:, :3].sum(1) / 3)[:, None]
    assert probe(top, repeats, near(c[:4], 0 * c[:4], 0), 3).tied == 3
    assert found.tied == 0
    half = np.where(c < np.median(c), 0, c)
    assert probe(half, repeats, near(c[:4], 0 * c[:4], 0), 3).zeros == pytest.approx(0.5)
