"""Target gradients, and the objectives that an engine's gradient descends on.

For a substitute inversion model with parameters theta, loss L(c; x) = mean squared error of I(c) against x
and g(c; x) = grad_theta L(c; x), the poisoned vector minimises ``1 - cos(t, g(c + d; x))`` (Eq. 7 of Zhou et
al., after Witches' Brew, Geiping et al. 2021), with the target ``t = grad_theta[-L]`` over the private data.
Batch-norm is in eval mode: samples do not couple.

Shape suffixes: N samples, K classes, CHW image, P parameters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mipoison.models.inversion import InversionNet

OBJECTIVES = ("cosine", "distance", "frozen")
"""``cosine``: 1 - cos(t, g). ``distance``: ||t - g||^2 (the paper's Poi_MSE). ``frozen``: minus the length of
g along t, -<t, g> / |t|: the cosine's gradient without its second term, so that v does not depend on the
sample."""


@dataclass(frozen=True)
class Aligned:
    """Cosine and its gradient. cosine_N: one per sample (scope sample) or the batch's, repeated. gradient_NK:
    of the objective (to be minimised) in the confidence vectors."""

    cosine_N: Tensor
    gradient_NK: Tensor


def parameters_of(decoder: InversionNet) -> list[Tensor]:
    """The decoder's parameters in the order in which targets are kept."""
    return list(decoder.parameters())


@contextlib.contextmanager
def gradients_of(parameters: list[Tensor]) -> Iterator[None]:
    """A scope in which gradients reach the parameters, even of a frozen decoder or under no_grad; restored
    afterwards."""
    required = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for p, r in zip(parameters, required, strict=True):
            p.requires_grad_(r)


def parameter_gradient(
    decoder: InversionNet, c_NK: Tensor, x_NCHW: Tensor, *, chunk: int = 512
) -> list[Tensor]:
    """grad_theta of the mean loss over all N pairs, accumulated in chunks."""
    parameters = parameters_of(decoder)
    total = [torch.zeros_like(p) for p in parameters]
    with gradients_of(parameters):
        for i in range(0, len(c_NK), chunk):
            x = x_NCHW[i : i + chunk]
            error_N = (decoder(c_NK[i : i + chunk]) - x).square().flatten(1).mean(1)
            for t, g in zip(total, torch.autograd.grad(error_N.sum() / len(c_NK), parameters), strict=True):
                t += g
    return total


def target_gradient(decoder: InversionNet, c_NK: Tensor, x_NCHW: Tensor) -> list[Tensor]:
    """The defender's target ``t = grad_theta[-L(S; T(x), x)]`` over the private data (Algorithm 1, line 1).

    With negative PSNR of the whole set as L the target is a positive multiple of this one, so every cosine is
    equal.
    """
    return [-g for g in parameter_gradient(decoder, c_NK, x_NCHW)]


def norm_of(vectors: list[Tensor]) -> Tensor:
    """l2 norm of a list of tensors taken as one vector."""
    return torch.sqrt(
        sum((v.double().square().sum() for v in vectors), torch.zeros((), dtype=torch.float64))
    ).to(vectors[0])


def objective_of(name: str, dot: Tensor, square: Tensor, target_norm: Tensor) -> tuple[Tensor, Tensor]:
    """(value to minimise, cosine) from <t, g>, |g|^2 and |t|; ValueError for an unknown objective."""
    tiny = torch.finfo(square.dtype).tiny
    cosine = dot / (target_norm * torch.sqrt(square.clamp_min(tiny))).clamp_min(tiny)
    if name == "cosine":
        return 1 - cosine, cosine
    if name == "distance":
        return target_norm.square() - 2 * dot + square, cosine
    if name == "frozen":
        return -dot / target_norm.clamp_min(tiny), cosine
    raise ValueError(f"unknown alignment objective {name!r}; choose from: {', '.join(OBJECTIVES)}")


def weights_of(name: str, dot: Tensor, square: Tensor, target_norm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(beta, alpha, cosine): the objective's gradient in c is that of ``<alpha g - beta t, g(c)>`` with the
    left side held fixed, which is what engines without a double backward differentiate."""
    tiny = torch.finfo(square.dtype).tiny
    length = torch.sqrt(square.clamp_min(tiny))
    cosine = dot / (target_norm * length).clamp_min(tiny)
    if name == "cosine":
        beta = 1 / (target_norm * length).clamp_min(tiny)
        return beta, cosine / square.clamp_min(tiny), cosine
    if name == "distance":
        return torch.full_like(dot, 2.0), torch.full_like(dot, 2.0), cosine
    if name == "frozen":
        return torch.ones_like(dot) / target_norm.clamp_min(tiny), torch.zeros_like(dot), cosine
    raise ValueError(f"unknown alignment objective {name!r}; choose from: {', '.join(OBJECTIVES)}")
