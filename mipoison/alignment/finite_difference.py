"""Finite differences: the derivative of the input gradient along a direction v in the parameters.

``grad_c <v, g(c)> ~ (grad_c L(c; theta + h v) - grad_c L(c; theta - h v)) / 2h``. The passes use autograd and
torch.func and share no code with the hand-written ones, so that each can test the other.

The passes run in float64. In float32 no step length h works for log features: their values of about 50 make
the first layer move by 50 h, which asks for a small h, and then rounding leaves few digits of the difference.

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
    """The step h with ``h |v| = eta |theta|``.

    ``eta = eps^(1/3)`` balances the rounding error, of order eps/h, against the truncation error h^2.
    """
    eta = torch.finfo(parameters[0].dtype).eps ** (1 / 3)
    return eta * norm_of(list(parameters)) / v_norm.clamp_min(torch.finfo(v_norm.dtype).tiny)


def loss(decoder: InversionNet, parameters: dict[str, Tensor], c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """Sum over the samples of the decoder's mean squared error, with the parameters given."""
    y_NCHW = functional_call(decoder, parameters, (c_NK,))
    return (y_NCHW - x_NCHW).square().flatten(1).mean(1).sum()


def along_shared(decoder: InversionNet, v: list[Tensor], c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """``grad_c <v, g>`` of the summed losses, (N, K), for one direction v that all samples share."""
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
    """Each sample's gradient in the parameters: a list of tensors (N, ...) in the order of the target."""
    theta = {n: p.detach() for n, p in decoder.named_parameters()}

    def one(c_K: Tensor, x_CHW: Tensor) -> dict[str, Tensor]:
        return grad(lambda p: loss(decoder, p, c_K[None], x_CHW[None]))(theta)

    return list(vmap(one)(c_NK.detach(), x_NCHW).values())


def along_samples(decoder: InversionNet, v: list[Tensor], c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """``grad_c <v_i, g_i>``, (N, K), where each sample has its own direction; v is a list of tensors (N,
    ...)."""
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
    """Copies of all arguments in float64; scores that the log features clamp in float32 stay clamped."""
    if c_NK.dtype == torch.float32:
        tiny = torch.finfo(torch.float32).tiny
        c_NK = torch.where(c_NK >= tiny, c_NK, 0.0)
    return copy.deepcopy(decoder).double(), c_NK.double(), x_NCHW.double(), [d.double() for d in v]
