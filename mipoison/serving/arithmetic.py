"""A fitted unit as pure arithmetic: a module from clean vectors to released vectors, to be exported.

It runs the same tensor operations for every input: no check, no search, no key, no classifier. What a defense
does with hashes, searches or other images of its request is not arithmetic, and is refused.

Shape suffixes: N queries, K classes, D pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.defenses.codebook import Codebook, is_one_hot, labelled, whole_steps
from mipoison.defenses.noise import TangentNoise
from mipoison.defenses.rounding import Rounding, apportion
from mipoison.protocols import Defense
from mipoison.simplex.projections import feasible

NAMES = ("rounding", "codebook", "noise", "noise-fresh")
"""Defenses that :func:`arithmetic_of` knows."""
SCALE = 2.0**24
BELOW = SCALE - 1.25
"""A positive float32 times this over SCALE, rounded to float32, is the next smaller float32. It is not one
factor, as ONNX optimisers drop products with what is nearly 1; both numbers are exact in float32."""


class RoundingForward(nn.Module):
    """``c (N, K) -> c' (N, K)``, float32."""

    inputs = ("c",)

    def __init__(self, defense: Rounding) -> None:
        super().__init__()
        self.units = defense.config.units

    def forward(self, c_NK: Tensor) -> Tensor:
        return strictly_labelled(apportion(c_NK, self.units).float(), c_NK)


class CodebookForward(nn.Module):
    """``(c (N, K), x (N, C, H, W)) -> c' (N, K)``, float32; ``Codebook.protect`` without its checks."""

    inputs = ("c", "x")

    def __init__(self, defense: Codebook) -> None:
        super().__init__()
        self.steps = defense.config.steps
        for name, value in defense.state().items():
            self.register_buffer(name, value.detach().clone())

    own_LJK: Tensor
    own_tilt_LJR: Tensor
    own_offset_LJ: Tensor
    grid_GK: Tensor
    grid_tilt_GR: Tensor
    grid_offset_G: Tensor
    unseen_offset: Tensor
    axes_DR: Tensor
    centre_LR: Tensor

    def forward(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        wide_NK, label_N = c_NK.double(), c_NK.argmax(1)
        deviation_NR = x_NCHW.flatten(1).double() @ self.axes_DR - self.centre_LR[label_N]
        own_NJK = self.own_LJK[label_N]
        cost_NJ = _length(wide_NK[:, None] - own_NJK) + self.own_offset_LJ[label_N]
        cost_NJ = cost_NJ + (self.own_tilt_LJR[label_N] * deviation_NR[:, None]).sum(2)
        best_N11 = cost_NJ.argmin(1)[:, None, None]
        z_NK = own_NJK.gather(1, best_N11.expand(-1, 1, c_NK.shape[1]))[:, 0]
        if self.steps > 0:
            whole_NK = whole_steps(wide_NK, self.steps)
            point_NK = whole_NK / self.steps
            offset_N = self._grid_cost(labelled(whole_NK, label_N), deviation_NR)
            cost_N = _length(wide_NK - point_NK) + offset_N
            z_NK = torch.where((cost_N < cost_NJ.amin(1))[:, None], point_NK, z_NK)
        return strictly_labelled(z_NK.float(), F.one_hot(label_N, c_NK.shape[1]).float())

    def _grid_cost(self, place_NK: Tensor, deviation_NR: Tensor) -> Tensor:
        offset_N = self.unseen_offset.expand(place_NK.shape[0])
        if len(self.grid_GK) > 0:
            same_NG = (place_NK[:, None] == self.grid_GK[None]).all(2)
            which_N = same_NG.to(torch.int64).argmax(1)
            known_N = self.grid_offset_G[which_N] + (self.grid_tilt_GR[which_N] * deviation_NR).sum(1)
            offset_N = torch.where(same_NG.any(1), known_N, offset_N)
        far = torch.full_like(offset_N, torch.inf)
        return torch.where(is_one_hot(place_NK, self.steps), far, offset_N)


class NoiseForward(nn.Module):
    """``(c (N, K), g (N, K) float64) -> c' (N, K)``, float32, with g standard normal.

    Drawing is the caller's: ``QueryRandomness.normal(K, "tangent noise")`` of the queries' keys gives what
    the unit draws. The keys hash the image with a secret, which is no arithmetic and never exported.
    """

    inputs = ("c", "g")
    length: Tensor

    def __init__(self, defense: TangentNoise) -> None:
        super().__init__()
        self.sphere, self.budget = defense.config.law == "sphere", defense.config.budget
        # A tensor, as exporters round plain numbers to float32.
        self.register_buffer("length", torch.tensor(self.budget, dtype=torch.float64))

    def forward(self, c_NK: Tensor, g_NK: Tensor) -> Tensor:
        if self.budget == 0:
            return c_NK.clone()
        label_N1 = c_NK.argmax(1, keepdim=True)
        d_NK = g_NK - g_NK.mean(dim=1, keepdim=True)
        if self.sphere:
            d_NK = d_NK / _length(d_NK)[:, None].clamp_min(1e-300)
            # A step as long as the budget stays within it when it is projected: no search is needed.
            centre_NK = c_NK.double().clamp(min=0.0)
            centre_NK = centre_NK / centre_NK.sum(dim=1, keepdim=True)
            z_NK = feasible(centre_NK + self.length * d_NK, label_N1).float()
            return strictly_labelled(z_NK, c_NK)
        sigma = self.length / torch.tensor(max(c_NK.shape[1] - 1, 1), dtype=torch.float64).sqrt()
        z_NK = feasible(c_NK.double() + sigma * d_NK, label_N1).float()
        return strictly_labelled(z_NK, F.one_hot(label_N1[:, 0], c_NK.shape[1]).float())


Arithmetic = RoundingForward | CodebookForward | NoiseForward


def arithmetic_of(name: str, defense: Defense) -> Arithmetic:
    """The defense as a module on the CPU.

    Args:
        name: key of DEFENSES. defense: fitted.

    Raises:
        ConfigError: what the defense does is not arithmetic alone.
    """
    if isinstance(defense, Rounding):
        return RoundingForward(defense).eval()
    if isinstance(defense, Codebook):
        return CodebookForward(defense).cpu().eval()
    if type(defense) is TangentNoise:
        return NoiseForward(defense).eval()
    hint = (
        "mipoison.serving.export.export_amortised writes this one with torch.export"
        if name == "lpa-amortised"
        else "wrap the classifier with the unit where it runs (unit.wrap)"
    )
    raise ConfigError(
        f"{name} cannot be exported: it is not arithmetic on the clean vector alone (a search, a key of the "
        f"image, the classifier or other queries enter); exported are {', '.join(NAMES)}; {hint}"
    )


def strictly_labelled(z_NK: Tensor, c_NK: Tensor) -> Tensor:
    """``mipoison.simplex.keep_label`` of float32 rows in multiplications alone.

    The number below a float32 t is ``float32(t (1 - 1.25 * 2^-24))``, the product in float64: the gap below t
    is between t 2^-24 and t 2^-23, so that the number at its other end is the nearest to the product.
    """
    label_N1 = c_NK.argmax(1, keepdim=True)
    top_N1 = z_NK.gather(1, label_N1)
    below_N1 = (top_N1.double() * BELOW / SCALE).float()
    strict_NK = torch.minimum(z_NK, below_N1).scatter(1, label_N1, top_N1)
    return torch.where((z_NK == c_NK).all(dim=1, keepdim=True), z_NK, strict_NK)


def _length(v: Tensor) -> Tensor:
    """Length along the last dimension."""
    return v.square().sum(-1).sqrt()
