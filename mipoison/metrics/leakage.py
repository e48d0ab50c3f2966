"""Leakage: how close an attacker's reconstructions come to the private images.

Images are (N, C, H, W) with pixels in [0, 1]; an error is a mean squared error per pixel on that scale.
Invalid input raises ValueError with the offending values.

Shape suffixes: N images, M thresholds, C channels, H height, W width, K classes, D places of a window,
S pixels of a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mipoison.metrics.utility import accuracy

PIXEL_TOLERANCE = 1e-4
"""How far a pixel may lie outside [0, 1]: rounding passes, another pixel scale does not."""

ERROR_PERCENTS = tuple(range(0, 101, 5))
PERCENTILE_COLUMNS = tuple(f"error_percentile.{p:03d}" for p in ERROR_PERCENTS)
"""Columns of :func:`error_percentiles`."""

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5
"""Gaussian window of :func:`ssim`: 11 x 11 pixels, as in Wang et al. 2004."""
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2
"""Constants of :func:`ssim`, for pixels in [0, 1]."""


def _images(name: str, x_NCHW: Tensor) -> None:
    if x_NCHW.ndim != 4 or 0 in x_NCHW.shape:
        raise ValueError(f"{name} must be non-empty (N, C, H, W) images, got shape {tuple(x_NCHW.shape)}")
    if not x_NCHW.is_floating_point():
        raise ValueError(f"{name} must be floating point with pixels in [0, 1], got {x_NCHW.dtype}")
    low, high = float(x_NCHW.min()), float(x_NCHW.max())
    if not (low >= -PIXEL_TOLERANCE and high <= 1 + PIXEL_TOLERANCE):  # NaN fails both
        raise ValueError(f"{name} must have finite pixels in [0, 1], got values from {low:g} to {high:g}")


def check_image_pair(rec_NCHW: Tensor, x_NCHW: Tensor) -> None:
    if rec_NCHW.shape != x_NCHW.shape:
        raise ValueError(
            f"reconstructions and images differ in shape: {tuple(rec_NCHW.shape)} and {tuple(x_NCHW.shape)}"
        )
    _images("reconstructions", rec_NCHW)
    _images("images", x_NCHW)


def _error(name: str, value: float, *, positive: bool = False) -> float:
    value = float(value)
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise ValueError(f"{name} must be finite and {'above' if positive else 'at least'} 0, got {value}")
    return value


def _errors(errors_N: Tensor) -> Tensor:
    """Per-image errors in float64 on the CPU; raises ValueError if empty, not finite or negative."""
    if errors_N.ndim != 1 or len(errors_N) == 0:
        raise ValueError(f"errors must be a non-empty vector (N,), got shape {tuple(errors_N.shape)}")
    errors_N = errors_N.detach().cpu().double()
    bad = int((~torch.isfinite(errors_N) | (errors_N < 0)).sum())
    if bad:
        raise ValueError(f"errors must be finite and at least 0, got {bad} of {len(errors_N)} that are not")
    return errors_N


def _batches(rec_NCHW: Tensor, x_NCHW: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of chunks in float64, on the device of the images."""
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    for start in range(0, len(x_NCHW), batch):
        rec, x = rec_NCHW[start : start + batch], x_NCHW[start : start + batch]
        yield rec.detach().to(x.device, torch.float64), x.detach().double()


def reconstruction_errors(rec_NCHW: Tensor, x_NCHW: Tensor, *, batch: int = 4096) -> Tensor:
    """Mean squared error of each reconstruction over its pixels, in [0, 1].

    Args:
        rec_NCHW: reconstructions, in the order of ``x_NCHW``.
        x_NCHW: the private images.
        batch: images at once; bounds memory, does not change a value.

    Returns:
        Errors (N,), float64, on the device of ``x_NCHW``.
    """
    check_image_pair(rec_NCHW, x_NCHW)
    return torch.cat([(r - x).square().mean(dim=(1, 2, 3)) for r, x in _batches(rec_NCHW, x_NCHW, batch)])


def mean_image_error(x_train_NCHW: Tensor, x_NCHW: Tensor) -> float:
    """Error of an attacker that answers every vector with the mean image of its own data.

    Args:
        x_train_NCHW: the attacker's training images (D_inv train).
        x_NCHW: the private images, of the same (C, H, W).
    """
    if x_train_NCHW.shape[1:] != x_NCHW.shape[1:]:
        raise ValueError(
            f"attack set and private images differ in (C, H, W): {tuple(x_train_NCHW.shape[1:])} "
            f"and {tuple(x_NCHW.shape[1:])}"
        )
    _images("attack set", x_train_NCHW)
    mean_CHW = x_train_NCHW.detach().mean(dim=0, dtype=torch.float64).to(x_NCHW.device)
    errors_N = reconstruction_errors(mean_CHW.expand(x_NCHW.shape), x_NCHW)
    return float(errors_N.mean())


def reconstruction_skill(error: float, mean_image_error: float) -> float:
    """``1 - error / mean_image_error``: 1 is perfect, 0 as good as the mean image, below 0 worse than it.

    Raises:
        ValueError: a value is negative or not finite, or the mean image's error is 0 (nothing to
            reconstruct).
    """
    return 1 - _error("error", error) / _error("mean_image_error", mean_image_error, positive=True)


def share_recognised(logits_or_c_NK: Tensor, y_N: Tensor) -> float:
    """Share of reconstructions, in [0, 1], that an evaluator assigns to the private image's class.

    Args:
        logits_or_c_NK: the evaluator's scores for the reconstructions, logits or confidence vectors.
        y_N: classes of the private images, in the evaluator's numbering.
    """
    return accuracy(logits_or_c_NK, y_N)


def _window(size: int, device: torch.device) -> Tensor:
    """The Gaussian window along one side as a banded matrix (size, size), float64, with reflected borders."""
    offsets_D = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, device=device)
    weight_D = torch.exp(-0.5 * (offsets_D.double() / SSIM_SIGMA).square())
    at_SD = (torch.arange(size, device=device)[:, None] + offsets_D).abs()
    at_SD = torch.where(at_SD < size, at_SD, 2 * (size - 1) - at_SD)
    window_SS = torch.zeros(size, size, dtype=torch.float64, device=device)
    return window_SS.scatter_add_(1, at_SD, (weight_D / weight_D.sum()).expand(size, -1))


def ssim(rec_NCHW: Tensor, x_NCHW: Tensor, *, batch: int = 256) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each reconstruction, in [-1, 1].

    The window is the standard Gaussian, sigma 1.5 and 11 x 11 pixels, on images of every size, so values
    compare across datasets in definition; on 16x16 it spans most of the image and SSIM is correspondingly
    coarse. Borders are reflected and all H x W positions are averaged (no cropping, which would leave 6 x 6
    of a 16x16 image), then the channels. Constants K1 = 0.01, K2 = 0.03, pixel range 1.

    The window is a product of one along each side, so that a local mean is two products with a banded matrix:
    some 40 times as fast as torchmetrics' convolution, and equal to it within 1e-12 (tested).

    Args:
        rec_NCHW: reconstructions, in the order of ``x_NCHW``.
        x_NCHW: the private images, at least 6 pixels high and wide.
        batch: images at once; bounds memory, does not change a value.

    Returns:
        SSIM (N,), float64, on the device of ``x_NCHW``.
    """
    check_image_pair(rec_NCHW, x_NCHW)
    if min(x_NCHW.shape[2:]) <= SSIM_RADIUS:
        raise ValueError(f"ssim needs {SSIM_RADIUS + 1} pixels a side or more, got {tuple(x_NCHW.shape[2:])}")
    down_HH, across_WW = (_window(size, x_NCHW.device) for size in x_NCHW.shape[2:])
    values = []  # in float64: float32 variances, differences of squares, shift flat regions by 1e-4
    for rec, x in _batches(rec_NCHW, x_NCHW, batch):
        maps = torch.stack([rec, x, rec * rec, x * x, rec * x])
        mean_rec, mean_x, rec_rec, x_x, rec_x = down_HH @ (maps @ across_WW.mT)
        squares = mean_rec.square() + mean_x.square()
        product = mean_rec * mean_x
        variances = (rec_rec - mean_rec.square()).clamp_min(0) + (x_x - mean_x.square()).clamp_min(0)
        luminance = (2 * product + SSIM_C1) / (squares + SSIM_C1)
        map_NCHW = luminance * (2 * (rec_x - product) + SSIM_C2) / (variances + SSIM_C2)
        values.append(map_NCHW.mean(dim=(1, 2, 3)))
    return torch.cat(values)


def gamma_inversion(errors_N: Tensor, gamma: float) -> bool:
    """Whether the attack is a successful gamma-inversion (Definition 1): mean error at most ``gamma``."""
    return float(_errors(errors_N).mean()) <= _error("gamma", gamma)


def defense_curve(errors_N: Tensor, epsilons_M: Tensor) -> Tensor:
    """The (epsilon, eta)-defense curve (Definition 2, Eq. 8), in [0, 1]; lower is a better defense.

    The definition asks for ``Pr[error >= epsilon] >= 1 - eta``; the least eta that holds is the share of
    images with an error strictly below epsilon.

    Args:
        errors_N: per-image errors.
        epsilons_M: thresholds in any order.

    Returns:
        eta (M,), float64 on the CPU.
    """
    sorted_N = _errors(errors_N).sort().values
    if epsilons_M.ndim != 1 or len(epsilons_M) == 0 or not bool(torch.isfinite(epsilons_M).all()):
        raise ValueError(f"epsilons must be a non-empty vector of finite thresholds, got {epsilons_M}")
    below_M = torch.searchsorted(sorted_N, epsilons_M.detach().cpu().double().contiguous(), right=False)
    return below_M.double() / len(sorted_N)


def error_percentiles(errors_N: Tensor) -> dict[str, float]:
    """The curve eta(epsilon) in 21 points: the errors that 0, 5, ... 100 % of the images do not exceed.

    Keys ``error_percentile.000`` to ``error_percentile.100``; linear between neighbouring images (NumPy's
    default).
    """
    errors_N = _errors(errors_N)
    shares = torch.tensor(ERROR_PERCENTS, dtype=torch.float64) / 100
    values = torch.quantile(errors_N, shares).tolist()
    return dict(zip(PERCENTILE_COLUMNS, values, strict=True))


def excess_leakage(worst_error: float, label_only_error: float) -> float:
    """``1 - worst_error / label_only_error``: how much the best attacker gains beyond the label.

    At 0 the attackers gain nothing beyond the label. Above 0 the scores leak. Below 0 the attackers do worse
    with the scores than with the label alone, which shows that they are under-trained, because an attacker
    can always discard the scores.

    Args:
        worst_error: least mean error over the attackers on this defense.
        label_only_error: least mean error over the attackers on one-hot answers; same victim, split and seed.

    Raises:
        ValueError: a value is negative or not finite, or the label-only error is 0.
    """
    floor = _error("label_only_error", label_only_error, positive=True)
    return 1 - _error("worst_error", worst_error) / floor
