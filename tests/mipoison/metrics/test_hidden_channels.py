"""Hidden channels: features by hand, the size of the test, and its power on planted channels."""

import math

import pytest
import torch
from torch import Tensor

from mipoison.metrics.hidden_channels import (
    PERMUTATIONS,
    digits_after,
    hidden_channel_p,
    hidden_features,
    near_ties,
    visible_cells,
)
from mipoison.randomness import generator

LEAST = 1 / (PERMUTATIONS + 1)


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=generator(seed, "images"))


def smooth(x_NCHW: Tensor) -> Tensor:
    """Undefended vectors of three classes: a smooth function of the image."""
    z_NK = 3 * (x_NCHW.flatten(1)[:, :3] - 0.5) + torch.tensor([2.0, 0, 0])
    return torch.softmax(3 * z_NK, 1)


def test_digits_by_hand() -> None:
    c = torch.tensor([[0.123456, 0.0009, 0.0, 0.9999, 0.25]], dtype=torch.float64)
    found = digits_after(c, 3)[0].tolist()
    assert found == pytest.approx([0.456, 0, 0, 0, 0], abs=1e-9)
    assert float(digits_after(c, 4)[0, 0]) == pytest.approx(-0.44)


@pytest.mark.parametrize("step", [0.1, 0.01, 1 / 8])
def test_grids_in_single_precision_have_no_digits(step: float) -> None:
    c = (torch.arange(int(1 / step)) * step).float()[None].double()
    for significant in range(3, 7):
        assert digits_after(c, significant).abs().max() == 0


def test_near_ties_by_hand() -> None:
    a = torch.tensor(0.3)
    above = torch.nextafter(a, torch.tensor(1.0))
    c = torch.stack([a, above, a, torch.tensor(0.1)])[None].double()
    assert near_ties(c)[0].tolist() == [-1, 2, -1, 0]


def test_signs_of_zeros_and_sums_by_hand() -> None:
    found = hidden_features(torch.tensor([[1.0, 0.0, -0.0], [0.5, 0.25, 0.2501]]))
    assert found[:, :3].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert found[:, 3].tolist() == pytest.approx([0, 1e-4], abs=1e-7)


def test_cells_are_what_two_decimals_show() -> None:
    c = torch.tensor([[0.501, 0.499, 0.0], [0.499, 0.501, -0.0], [0.5009, 0.4991, -0.0]])
    assert visible_cells(c).tolist() == [visible_cells(c)[0], visible_cells(c)[1], visible_cells(c)[0]]
    assert visible_cells(c)[0] != visible_cells(c)[1]


def test_p_is_uniform_without_a_channel() -> None:
    """Digits drawn at random: the share of p values below a level is the level."""
    n, runs, ps = 60, 200, []
    for seed in range(runs):
        rng = generator(seed, "null")
        c = torch.full((n, 2), 0.4) + 1e-5 * torch.rand(n, 2, generator=rng)
        p = hidden_channel_p(c, images(n, seed), rng=rng)
        assert p is not None
        ps.append(p)
    for level in (0.1, 0.3, 0.5):
        share = sum(p <= level for p in ps) / runs
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / runs)


@pytest.mark.parametrize("make", [smooth, lambda x: (smooth(x) * 100).round() / 100], ids=["raw", "rounded"])
def test_scores_that_follow_the_image_openly_are_no_hidden_channel(make) -> None:
    x = images(400)
    p = hidden_channel_p(make(x), x, rng=generator(0))
    assert p is None or p > 0.01


def written(c_NK: Tensor, bit_N: Tensor, how: str) -> Tensor:
    """Vectors in which one bit, or a number in [0, 1], hides."""
    c_NK = c_NK.clone()
    if how == "sign":
        c_NK[:, 2] = torch.where(bit_N > 0.5, -0.0, 0.0)
    elif how == "sum":
        c_NK[:, 1] += 1e-6 * bit_N
    elif how == "digits":
        c_NK[:, 0] = (c_NK[:, 0] * 1e4).floor() / 1e4 + 1e-5 * bit_N
    return c_NK


@pytest.mark.parametrize("how", ["sign", "sum", "digits"])
def test_a_planted_channel_is_found(how: str) -> None:
    x = images(300)
    c = torch.tensor([0.75, 0.25, 0.0]).expand(300, 3)
    told = x[:, 0, 1, 2]
    p = hidden_channel_p(written(c, told, how), x, rng=generator(0))
    assert p == pytest.approx(LEAST)
    shuffled = told[torch.randperm(300, generator=generator(1))]
    assert hidden_channel_p(written(c, shuffled, how), x, rng=generator(0)) > 0.01  # type: ignore[operator]


def test_nothing_to_test() -> None:
    x = images(5)
    assert hidden_channel_p(torch.eye(5), x, rng=generator(0)) is None
    assert hidden_channel_p(torch.tensor([0.5, 0.5]).expand(5, 2), x, rng=generator(0)) is None
    many = torch.tensor([[0.7, 0.2, 0.1], [1 / 6, 0.5, 1 / 3]]).repeat(100, 1)
    assert hidden_channel_p(many, images(200), rng=generator(0)) is None
    assert hidden_channel_p(torch.rand(1, 3), x[:1], rng=generator(0)) is None
    with pytest.raises(ValueError, match="one each"):
        hidden_channel_p(torch.eye(5), x[:4], rng=generator(0))


def test_vectors_that_all_look_different_and_equal_images_are_nothing_to_test() -> None:
    """The deviations are rounding errors then, of which an eigendecomposition need not converge."""
    rng, n = generator(0, "test"), 400
    apart = torch.stack([torch.arange(n) / n, 1 - torch.arange(n) / n], 1)
    assert hidden_channel_p(apart[::5], images(n)[::5], rng=rng) is None
    alike = torch.tensor([[0.9, 0.1]]).repeat(n, 1) + 1e-5 * torch.rand(n, 2, generator=rng)
    same = images(1).repeat(n, 1, 1, 1)
    assert hidden_channel_p(alike, same, rng=rng) is None


def test_the_shorter_side_gives_the_same_components() -> None:
    """More pixels than images, and fewer: the same test, on images that are padded with nothing."""
    rng, n = generator(0, "test"), 60
    alike = torch.tensor([[0.9, 0.1]]).repeat(n, 1) + 1e-5 * torch.rand(n, 2, generator=rng)
    x = images(n)
    wide = torch.cat([x, torch.zeros(n, 1, 96, 4)], 2)
    found = [hidden_channel_p(alike, v, rng=generator(1, "draws")) for v in (x, wide)]
    assert found[0] == found[1]


@pytest.mark.parametrize("steps", [250, 633, 1500])
def test_a_grid_s_later_digits_are_no_hidden_channel(steps: int) -> None:
    """They repeat which step of the grid it is, and the steps follow the image as any score does."""
    least = 1.0
    for seed in range(8):
        x = images(300, seed)
        p = hidden_channel_p((smooth(x) * steps).round() / steps, x, rng=generator(seed))
        least = min(least, 1.0 if p is None else p)
    assert least > 0.002
