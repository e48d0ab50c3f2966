"""Target gradients, and the alignment objectives that a defense minimises.

A substitute inversion model I has parameters theta, the loss L(c; x) = mean squared error of I(c) against the
image x, and the gradient g(c; x) = grad_theta L(c; x). A poisoned vector c + d minimises
``1 - cos(t, g(c + d; x))`` (Eq. 7 of Zhou et al., after Witches' Brew, Geiping et al. 2021, arXiv
2009.02276), with the target ``t = grad_theta[-L]`` over the private data. Batch-norm is in eval mode, so that
samples do not affect each other.

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
"""``cosine``: 1 - cos(t, g). ``distance``: ||t - g||^2 (the paper's Poi_MSE). ``frozen``: -<t, g> / |t|,
minus the length of g along t; its gradient lacks the cosine's second term, so that the direction in the
parameters is the same for all samples and cheaper to differentiate along."""


@dataclass(frozen=True)
class Aligned:
    """How well gradients align with their target, and how that changes with the confidence vectors.

    Attributes:
        cosine_N: cosine between target and gradient, [-1, 1]; in batch scope the batch's, repeated.
        gradient_NK: gradient, in the confidence vectors, of the objective that is minimised.
        value_N: that objective; in batch scope the batch's, repeated.
    """

    cosine_N: Tensor
    gradient_NK: Tensor
    value_N: Tensor


def join(parts: list[Aligned]) -> Aligned:
    """The samples of several parts, at least one, in their order."""
    return Aligned(
        torch.cat([p.cosine_N for p in parts]),
        torch.cat([p.gradient_NK for p in parts]),
        torch.cat([p.value_N for p in parts]),
    )


def parameters_of(decoder: InversionNet) -> list[Tensor]:
    """The decoder's parameters in the order in which targets are kept."""
    return list(decoder.parameters())


@contextlib.contextmanager
def gradients_of(parameters: list[Tensor]) -> Iterator[None]:
    """A context in which the parameters require gradients, even those of a frozen decoder or under no_grad.

    Afterwards the parameters are as before.
    """
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
    """Gradient in the parameters of the mean loss over all N pairs, ``chunk`` pairs at a time."""
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
    """(beta, alpha, cosine) from <t, g>, |g|^2 and |t|; ValueError for an unknown objective.

    The objective's gradient in c equals that of ``<alpha g - beta t, g(c)>`` where the left factor counts as
    constant. Engines without a double backward differentiate this product.
    """
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
