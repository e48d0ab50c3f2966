"""The reference: double backward through the alignment objective with autograd, as in Witches' Brew.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipoison.alignment.gradients import Aligned, gradients_of, join, norm_of, objective_of, parameters_of
from mipoison.alignment.layers import layer_inner, layer_products
from mipoison.models.inversion import InversionNet, features


def align_batch(
    decoder: InversionNet, target: list[Tensor], c_NK: Tensor, x_NCHW: Tensor, objective: str = "cosine"
) -> Aligned:
    """Align the gradient of the batch's mean loss (as the paper words it), by double backward.

    Args:
        decoder: the substitute, in eval mode. target: its target gradient, in the order of its parameters.
        c_NK: confidence vectors. x_NCHW: their images. objective: see OBJECTIVES.
    """
    parameters = parameters_of(decoder)
    c = c_NK.detach().requires_grad_(True)
    with gradients_of(parameters):
        error = (decoder(c) - x_NCHW).square().mean()
        g = torch.autograd.grad(error, parameters, create_graph=True)
        dot = sum(((t * a).sum() for t, a in zip(target, g, strict=True)), torch.zeros_like(error))
        square = sum((a.square().sum() for a in g), torch.zeros_like(error))
        value, cosine = objective_of(objective, dot, square, norm_of(target))
        (gradient,) = torch.autograd.grad(value, c)
    return Aligned(cosine.detach().expand(len(c)), gradient, value.detach().expand(len(c)))


def align_samples(
    decoder: InversionNet, target: list[Tensor], c_NK: Tensor, x_NCHW: Tensor, objective: str = "cosine"
) -> Aligned:
    """Align each sample's own gradient, for all samples in one double backward.

    Per-sample gradients are not formed if that costs more: <t, g_i> takes one pass through the layer with t
    as its weight, and |g_i|^2 the product of two Gram matrices (the "ghost norm" of Goodfellow 2015,
    arXiv 1510.01799, and Li et al. 2022, arXiv 2110.05679).

    Args: see :func:`align_batch`.
    """
    c = c_NK.detach().requires_grad_(True)
    with torch.enable_grad():
        layers = _backward(decoder, c, x_NCHW, create_graph=True)
        dot_N = c.new_zeros(len(c))
        square_N = c.new_zeros(len(c))
        rest = iter(target)
        for layer, a, b in layers:
            d, s = layer_products(layer, a, b, rest)
            dot_N, square_N = dot_N + d, square_N + s
        value_N, cosine_N = objective_of(objective, dot_N, square_N, norm_of(target))
        (gradient,) = torch.autograd.grad(value_N.sum(), c)
    return Aligned(cosine_N.detach(), gradient, value_N.detach())


def align_samples_loop(
    decoder: InversionNet, target: list[Tensor], c_NK: Tensor, x_NCHW: Tensor, objective: str = "cosine"
) -> Aligned:
    """As :func:`align_samples`, with one double backward a sample: simple and slow, for benchmarks and
    tests."""
    parts = [
        align_batch(decoder, target, c_NK[i : i + 1], x_NCHW[i : i + 1], objective) for i in range(len(c_NK))
    ]
    if not parts:
        return Aligned(c_NK.new_zeros(0), torch.zeros_like(c_NK), c_NK.new_zeros(0))
    return join(parts)


@dataclass
class _Step:
    layer: nn.Module
    input: Tensor
    output: Tensor


def _trace(decoder: InversionNet, c_NK: Tensor) -> list[_Step]:
    z = features(c_NK, decoder.kind)[:, :, None, None]
    steps = []
    for layer in decoder.layers:
        out = layer(z)
        steps.append(_Step(layer, z, out))
        z = out
    return steps


def angle_samples(decoder: InversionNet, c_NK: Tensor, reference_NK: Tensor, x_NCHW: Tensor) -> Aligned:
    """The cosine between each sample's ``g(c; x)`` and ``g(reference; x)``, and its gradient in c.

    This is the objective that MAD minimises (Orekondy et al. 2020, arXiv 1906.10908): every sample has a
    target of its own. At c = reference the cosine is 1, its maximum, and the gradient is 0.
    """
    c = c_NK.detach().requires_grad_(True)
    with torch.enable_grad():
        own = _backward(decoder, c, x_NCHW, create_graph=True)
        fixed = _backward(decoder, reference_NK.detach().requires_grad_(True), x_NCHW, create_graph=False)
        dot_N, square_N, norm_N = (c.new_zeros(len(c)) for _ in range(3))
        for (layer, a, b), (_, a0, b0) in zip(own, fixed, strict=True):
            a0, b0 = a0.detach(), b0.detach()
            dot_N = dot_N + layer_inner(layer, a, b, a0, b0)
            square_N = square_N + layer_inner(layer, a, b, a, b)
            norm_N = norm_N + layer_inner(layer, a0, b0, a0, b0)
        tiny = torch.finfo(c.dtype).tiny
        lengths_N = torch.sqrt(square_N.clamp_min(tiny)) * torch.sqrt(norm_N.clamp_min(tiny))
        cosine_N = dot_N / lengths_N.clamp_min(tiny)
        (gradient,) = torch.autograd.grad(cosine_N.sum(), c)
    return Aligned(cosine_N.detach(), gradient, cosine_N.detach())


def _backward(
    decoder: InversionNet, c_NK: Tensor, x_NCHW: Tensor, *, create_graph: bool
) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Each layer with parameters, its input, and the gradient of the summed losses in its output."""
    trace = _trace(decoder, c_NK)
    error = (torch.sigmoid(trace[-1].output) - x_NCHW).square().flatten(1).mean(1).sum()
    layers = [s for s in trace if not isinstance(s.layer, nn.Tanh)]
    grads = torch.autograd.grad(error, [s.output for s in layers], create_graph=create_graph)
    return [(s.layer, s.input, b) for s, b in zip(layers, grads, strict=True)]
