"""Utility and leakage numbers against loops, scikit-learn, scipy, torchmetrics and hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from mipoison.metrics import (
    defense_curve,
    excess_leakage,
    gamma_inversion,
    mean_image_error,
    reconstruction_errors,
    reconstruction_skill,
    share_recognised,
    ssim,
)
from mipoison.metrics.leakage import ERROR_PERCENTS, error_percentiles


def images(n: int, c: int, size: int, seed: int) -> torch.Tensor:
    return torch.rand(n, c, size, size, generator=torch.Generator().manual_seed(seed))


# --- leakage


@pytest.mark.parametrize("channels", [1, 3])
def test_reconstruction_errors_against_a_float64_loop(channels):
    rec, x = images(9, channels, 8, 0), images(9, channels, 8, 1)
    loop = []
    for r, t in zip(rec.double().numpy(), x.double().numpy(), strict=True):
        loop.append(sum((a - b) ** 2 for a, b in zip(r.ravel(), t.ravel(), strict=True)) / r.size)
    errors = reconstruction_errors(rec, x)
    assert errors.shape == (9,)
    np.testing.assert_allclose(errors.numpy(), loop, rtol=1e-12)
    assert torch.equal(reconstruction_errors(rec, x, batch=2), errors)
    assert torch.equal(reconstruction_errors(x, x), torch.zeros(9))
    black_on_white = reconstruction_errors(torch.zeros(2, channels, 8, 8), torch.ones(2, channels, 8, 8))
    assert torch.equal(black_on_white, torch.ones(2))


def test_mean_image_error_uses_the_attack_sets_mean():
    attack_set, private = images(30, 1, 8, 0), images(20, 1, 8, 1) * 0.3
    mean = attack_set.double().numpy().mean(axis=0)
    expected = ((private.double().numpy() - mean) ** 2).mean()
    assert mean_image_error(attack_set, private) == pytest.approx(expected, rel=1e-12)
    assert mean_image_error(private, attack_set) != pytest.approx(expected, rel=1e-2)
    # of its own set, the mean image's error is the mean pixel variance
    variance = attack_set.double().var(dim=0, correction=0).mean().item()
    assert mean_image_error(attack_set, attack_set) == pytest.approx(variance, rel=1e-12)


def test_skill_and_excess_leakage_by_hand():
    assert reconstruction_skill(0.01, 0.05) == pytest.approx(0.8)
    assert reconstruction_skill(0.05, 0.05) == 0
    assert reconstruction_skill(0.10, 0.05) == pytest.approx(-1)
    assert excess_leakage(0.0201, 0.0263) == pytest.approx(0.235741, abs=1e-6)
    assert excess_leakage(0.03, 0.02) == pytest.approx(-0.5)


@pytest.mark.parametrize("function", [reconstruction_skill, excess_leakage])
@pytest.mark.parametrize(
    ("error", "floor", "message"),
    [(0.1, 0.0, "above 0, got 0.0"), (math.nan, 1.0, "nan"), (0.1, math.inf, "inf"), (-0.1, 1.0, "-0.1")],
)
def test_errors_that_are_none_raise(function, error, floor, message):
    with pytest.raises(ValueError, match=message):
        function(error, floor)


def test_share_recognised_by_hand():
    logits = torch.tensor([[2.0, -1.0, 0.0], [0.0, 9.0, 1.0], [5.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    assert share_recognised(logits, torch.tensor([0, 1, 2, 2])) == 0.75


def slow_ssim(rec: np.ndarray, x: np.ndarray) -> float:
    """Wang et al. 2004 with scipy's Gaussian filter (11 x 11, reflected borders), every position averaged."""

    def blur(image: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(image, 1.5, mode="mirror", truncate=3.5)

    values = []
    for a, b in zip(rec, x, strict=True):
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
        covariance = blur(a * b) - mean_a * mean_b
        c1, c2 = 0.01**2, 0.03**2
        values.append(
            (2 * mean_a * mean_b + c1)
            * (2 * covariance + c2)
            / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        )
    return float(np.mean(values))


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (1, 6), (3, 32), (1, 64)])
def test_ssim_against_scipy(channels, size):
    x = images(5, channels, size, 0)
    rec = (0.6 * x + 0.4 * images(5, channels, size, 1)).clamp(0, 1)
    expected = [slow_ssim(r, t) for r, t in zip(rec.double().numpy(), x.double().numpy(), strict=True)]
    got = ssim(rec, x)
    assert got.shape == (5,)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(ssim(rec, x, batch=2).numpy(), got.numpy(), atol=1e-14)
    np.testing.assert_allclose(ssim(x, x).numpy(), 1, atol=1e-12)
    assert ssim(rec[:1], x[:1]).shape == (1,)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 16, 16), (3, 32, 20), (1, 6, 9)])
@pytest.mark.parametrize("kind", ["noise", "blurred", "nearly flat"])
def test_ssim_is_that_of_torchmetrics(kind, channels, height, width):
    """Within 1e-12 (seen: 1.4e-13), also where variances are rounding, or sides differ."""
    rng = torch.Generator().manual_seed(3)
    x, rec = torch.rand(2, 7, channels, height, width, generator=rng)
    if kind == "blurred":
        rec = 0.7 * x + 0.3 * x.mean(dim=(2, 3), keepdim=True)
    if kind == "nearly flat":
        x, rec = 0.5 + 1e-7 * x, 0.25 + 1e-7 * rec
    _, map_NCHW = structural_similarity_index_measure(
        rec.double(), x.double(), sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    np.testing.assert_allclose(ssim(rec, x).numpy(), map_NCHW.mean(dim=(1, 2, 3)).numpy(), rtol=0, atol=1e-12)


def test_ssim_of_flat_images_has_a_closed_form():
    # no variance: (2ab + c1) / (a^2 + b^2 + c1), with the pixel range 1 and not that of the images
    # (0.25 and 0.75 are exact in float32)
    a, b = torch.full((1, 1, 16, 16), 0.25), torch.full((1, 1, 16, 16), 0.75)
    assert ssim(a, b).item() == pytest.approx((0.375 + 1e-4) / (0.625 + 1e-4), rel=1e-10)


def test_ssim_needs_six_pixels():
    with pytest.raises(ValueError, match=r"6 pixels.*\(5, 5\)"):
        ssim(images(2, 1, 5, 0), images(2, 1, 5, 1))


@pytest.mark.parametrize("function", [reconstruction_errors, ssim])
@pytest.mark.parametrize(
    ("rec", "x", "message"),
    [
        (torch.zeros(2, 1, 8, 8), torch.zeros(3, 1, 8, 8), r"\(2, 1, 8, 8\) and \(3, 1, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8), r"\(2, 3, 8, 8\)"),  # would broadcast
        (torch.zeros(0, 1, 8, 8), torch.zeros(0, 1, 8, 8), r"non-empty.*\(0, 1, 8, 8\)"),
        (torch.zeros(8, 8), torch.zeros(8, 8), r"\(8, 8\)"),
        (torch.full((1, 1, 8, 8), math.nan), torch.zeros(1, 1, 8, 8), "reconstructions.*nan"),
        (torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), math.inf), "images.*inf"),
        (torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 255.0), "images.*255"),
        (torch.full((1, 1, 8, 8), -1.0), torch.zeros(1, 1, 8, 8), "reconstructions.*-1"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, 1, 8, 8), "uint8"),
    ],
)
def test_images_that_are_none_raise(function, rec, x, message):
    with pytest.raises(ValueError, match=message):
        function(rec, x)


def test_batches_hold_an_image_or_more():
    x = images(2, 1, 8, 0)
    with pytest.raises(ValueError, match=r"batch.*0"):
        ssim(x, x, batch=0)


def test_mean_image_error_rejects_other_shapes_and_empty_sets():
    with pytest.raises(ValueError, match=r"\(1, 8, 8\) and \(1, 16, 16\)"):
        mean_image_error(images(2, 1, 8, 0), images(2, 1, 16, 0))
    with pytest.raises(ValueError, match=r"attack set.*\(0, 1, 8, 8\)"):
        mean_image_error(torch.zeros(0, 1, 8, 8), images(2, 1, 8, 0))


def test_gamma_inversion_is_the_mean_with_equality():
    errors = torch.tensor([0.25, 0.75])  # mean 0.5 exactly
    assert gamma_inversion(errors, 0.5) is True
    assert gamma_inversion(errors, 0.4999) is False
    with pytest.raises(ValueError, match=r"gamma.*-1"):
        gamma_inversion(errors, -1)


def test_defense_curve_against_a_loop():
    errors = torch.rand(37, generator=torch.Generator().manual_seed(0))
    epsilons = torch.cat([torch.tensor([2.0, 0.5, 0.0]), errors[:4]])  # unsorted, with exact hits
    loop = [sum(float(e) < float(t) for e in errors) / 37 for t in epsilons]
    np.testing.assert_allclose(defense_curve(errors, epsilons).numpy(), loop, rtol=1e-12)
    # strictly below: an error equal to epsilon is a success of the defense (Eq. 8)
    assert defense_curve(torch.tensor([0.5]), torch.tensor([0.5])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (torch.zeros(0), r"\(0,\)"),
        (torch.zeros(2, 2), r"\(2, 2\)"),
        (torch.tensor([0.1, math.nan]), "1 of 2"),
        (torch.tensor([0.1, -0.1]), "1 of 2"),
    ],
)
def test_per_image_errors_that_are_none_raise(errors, message):
    with pytest.raises(ValueError, match=message):
        gamma_inversion(errors, 0.1)
    with pytest.raises(ValueError, match=message):
        defense_curve(errors, torch.tensor([0.1]))


def test_defense_curve_needs_finite_thresholds():
    for bad in (torch.tensor([]), torch.tensor([math.nan]), torch.tensor(0.5)):
        with pytest.raises(ValueError, match="epsilons"):
            defense_curve(torch.tensor([0.5]), bad)


def test_percentiles_are_numpys() -> None:
    errors = torch.rand(137, generator=torch.Generator().manual_seed(0))
    found = error_percentiles(errors)
    expected = np.quantile(errors.double().numpy(), np.array(ERROR_PERCENTS) / 100)
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-12)
