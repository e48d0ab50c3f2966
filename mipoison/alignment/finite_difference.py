"""Finite differences: the input gradient's derivative along v, from first-order passes at theta +- h v.

``grad_c <v, g(c)> ~ (grad_c L(c; theta + h v) - grad_c L(c; theta - h v)) / 2h``. Plain autograd and
torch.func: shares no code with the hand-written passes.

The passes at theta +- h v run in float64: in float32 no h served log features, whose first layer moves by h
times 50 (curvature) while the difference of two gradients keeps few digits (rounding).

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from mipoison.alignment.gradients import norm_of
from mipoison.models.inversion import InversionNet


def step_length(parameters: Sequence[Tensor], v_norm: Tensor) -> Tensor:
    """h with ``h |v| = eta |theta|``: eta balances rounding (eps/h) against curvature (h^2), eps^(1/3)."""
    eta = torch.finfo(parameters[0].dtype).eps ** (1 / 3)
    return eta * norm_of(list(parameters)) / v_norm.clamp_min(torch.finfo(v_norm.dtype).tiny)


def loss(decoder: InversionNet, parameters: dict[str, Tensor], c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """Summed losses of the decoder with other parameters."""
    y_NCHW = functional_call(decoder, parameters, (c_NK,))
    return (y_NCHW - x_NCHW).square().flatten(1).mean(1).sum()


def along_shared(decoder: InversionNet, v: list[Tensor], c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """``grad_c <v, g>`` of the summed losses for one direction that all samples share: (N, K)."""
    decoder, c_NK, x_NCHW, v = _wide(decoder, c_NK, x_NCHW, v)
    names = [name for name, _ in decoder.named_parameters()]
    theta = [p.detach() for p in decoder.parameters()]
    h = step_length(theta, norm_of(v))
    sides = []
    for sign in (1, -1):
        moved = {n: p + sign * h * d for n, p, d in zip(names, theta, v, strict=True)}
        sides.append(grad(lambda c, moved=moved: loss(decoder, moved, c, x_NCHW))(c_NK.detach()))
    return (sides[0] - sides[1]) / (2 * h)


def own_gradients(decoder: InversionNet, c_NK: Tensor, x_NCHW: Tensor) -> list[Tensor]:
    """Each sample's gradient in the parameters, formed: a list of (N, ...) in the order of the target."""
    theta = {n: p.detach() for n, p in decoder.named_parameters()}

    def one(c_K: Tensor, x_CHW: Tensor) -> dict[str, Tensor]:
        return grad(lambda p: loss(decoder, p, c_K[None], x_CHW[None]))(theta)

    return list(vmap(one)(c_NK.detach(), x_NCHW).values())


def along_samples(decoder: InversionNet, v: list[Tensor], c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """``grad_c <v_i, g_i>``, each sample along a direction of its own; v: a list of (N, ...)."""
    decoder, c_NK, x_NCHW, v = _wide(decoder, c_NK, x_NCHW, v)
    names = [name for name, _ in decoder.named_parameters()]
    theta = [p.detach() for p in decoder.parameters()]
    norm_N = torch.sqrt(sum((d.double().flatten(1).square().sum(1) for d in v), v[0].new_zeros(()).double()))
    h_N = step_length(theta, norm_N).to(theta[0])

    def one(c_K: Tensor, x_CHW: Tensor, h: Tensor, *d: Tensor) -> Tensor:
        sides = []
        for sign in (1, -1):
            moved = {n: p + sign * h * e for n, p, e in zip(names, theta, d, strict=True)}
            sides.append(grad(lambda c, moved=moved: loss(decoder, moved, c[None], x_CHW[None]))(c_K))
        return (sides[0] - sides[1]) / (2 * h)

    return vmap(one)(c_NK.detach(), x_NCHW, h_N, *v)


def _wide(
    decoder: InversionNet, c_NK: Tensor, x_NCHW: Tensor, v: list[Tensor]
) -> tuple[InversionNet, Tensor, Tensor, list[Tensor]]:
    """All of it in float64; scores that float32 features clamp stay clamped."""
    if c_NK.dtype == torch.float32:
        tiny = torch.finfo(torch.float32).tiny
        c_NK = torch.where(c_NK >= tiny, c_NK, 0.0)
    return copy.deepcopy(decoder).double(), c_NK.double(), x_NCHW.double(), [d.double() for d in v]
