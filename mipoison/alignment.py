"""Gradient alignment: the target gradient, and how the cosine to it changes with the confidence vector.

For a substitute inversion model with parameters theta, loss L(c; x) = mean squared error of I(c) against x
and g(c; x) = grad_theta L(c; x), the poisoned vector minimises ``1 - cos(t, g(c + d; x))`` (Eq. 7 of Zhou et
al., after Witches' Brew, Geiping et al. 2021), with the target ``t = grad_theta[-L]`` over the private data.
Batch-norm is in eval mode: samples do not couple.

Shape suffixes: N samples, K classes, CHW image, P parameters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.models.inversion import InversionNet, features


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
def _gradients_of(parameters: list[Tensor]) -> Iterator[None]:
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
    with _gradients_of(parameters):
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


def align_batch(
    decoder: InversionNet, target: list[Tensor], c_NK: Tensor, x_NCHW: Tensor, objective: str = "cosine"
) -> Aligned:
    """One alignment for the batch (the paper's wording): g is the mean loss's gradient. Double backward."""
    parameters = parameters_of(decoder)
    c = c_NK.detach().requires_grad_(True)
    with _gradients_of(parameters):
        error = (decoder(c) - x_NCHW).square().mean()
        g = torch.autograd.grad(error, parameters, create_graph=True)
        dot = sum(((t * a).sum() for t, a in zip(target, g, strict=True)), torch.zeros_like(error))
        square = sum((a.square().sum() for a in g), torch.zeros_like(error))
        value, cosine = _objective(objective, dot, square, norm_of(target))
        (gradient,) = torch.autograd.grad(value, c)
    return Aligned(cosine.detach().expand(len(c)), gradient)


def align_samples(
    decoder: InversionNet, target: list[Tensor], c_NK: Tensor, x_NCHW: Tensor, objective: str = "cosine"
) -> Aligned:
    """Each sample aligned alone, all of them in one double backward.

    Per-sample gradients are never formed where that costs more: <t, g_i> needs one pass through the layer
    with t as its weight, and |g_i|^2 the product of two Gram matrices (the "ghost norm" of Goodfellow 2015
    and Li et al. 2022).
    """
    c = c_NK.detach().requires_grad_(True)
    with torch.enable_grad():
        layers = _backward(decoder, c, x_NCHW, create_graph=True)
        dot_N = c.new_zeros(len(c))
        square_N = c.new_zeros(len(c))
        rest = iter(target)
        for layer, a, b in layers:
            d, s = _layer_products(layer, a, b, rest)
            dot_N, square_N = dot_N + d, square_N + s
        value_N, cosine_N = _objective(objective, dot_N, square_N, norm_of(target))
        (gradient,) = torch.autograd.grad(value_N.sum(), c)
    return Aligned(cosine_N.detach(), gradient)


SCOPES: dict[str, Callable[..., Aligned]] = {"sample": align_samples, "batch": align_batch}


def _objective(name: str, dot: Tensor, square: Tensor, target_norm: Tensor) -> tuple[Tensor, Tensor]:
    """(value to minimise, cosine) from <t, g>, |g|^2 and |t|."""
    tiny = torch.finfo(square.dtype).tiny
    cosine = dot / (target_norm * torch.sqrt(square.clamp_min(tiny))).clamp_min(tiny)
    if name == "cosine":
        return 1 - cosine, cosine
    if name == "distance":  # ||t - g||^2, the paper's Poi_MSE
        return target_norm.square() - 2 * dot + square, cosine
    raise ValueError(f"unknown alignment objective {name!r}; choose from: cosine, distance")


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
    """Each sample's own cosine between ``g(c; x)`` and ``g(reference; x)``, and its gradient in c.

    What MAD minimises (Orekondy et al. 2020): every sample has its own target. At c = reference the cosine is
    1, its maximum, and the gradient 0.
    """
    c = c_NK.detach().requires_grad_(True)
    with torch.enable_grad():
        own = _backward(decoder, c, x_NCHW, create_graph=True)
        fixed = _backward(decoder, reference_NK.detach().requires_grad_(True), x_NCHW, create_graph=False)
        dot_N, square_N, norm_N = (c.new_zeros(len(c)) for _ in range(3))
        for (layer, a, b), (_, a0, b0) in zip(own, fixed, strict=True):
            a0, b0 = a0.detach(), b0.detach()
            dot_N = dot_N + _layer_inner(layer, a, b, a0, b0)
            square_N = square_N + _layer_inner(layer, a, b, a, b)
            norm_N = norm_N + _layer_inner(layer, a0, b0, a0, b0)
        tiny = torch.finfo(c.dtype).tiny
        lengths_N = torch.sqrt(square_N.clamp_min(tiny)) * torch.sqrt(norm_N.clamp_min(tiny))
        cosine_N = dot_N / lengths_N.clamp_min(tiny)
        (gradient,) = torch.autograd.grad(cosine_N.sum(), c)
    return Aligned(cosine_N.detach(), gradient)


def _backward(
    decoder: InversionNet, c_NK: Tensor, x_NCHW: Tensor, *, create_graph: bool
) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Layers with parameters, each with its input and the gradient of the summed losses in its output."""
    trace = _trace(decoder, c_NK)
    error = (torch.sigmoid(trace[-1].output) - x_NCHW).square().flatten(1).mean(1).sum()
    layers = [s for s in trace if not isinstance(s.layer, nn.Tanh)]
    grads = torch.autograd.grad(error, [s.output for s in layers], create_graph=create_graph)
    return [(s.layer, s.input, b) for s, b in zip(layers, grads, strict=True)]


def _layer_inner(layer: nn.Module, a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> Tensor:
    """Per sample: <g, g0> of one layer's parameters, for inputs a, a0 and output gradients b, b0."""
    if isinstance(layer, nn.BatchNorm2d):
        weight, bias = _norm_gradient(layer, a, b)
        weight0, bias0 = _norm_gradient(layer, a0, b0)
        return (weight * weight0).sum(1) + (bias * bias0).sum(1)
    if not isinstance(layer, nn.ConvTranspose2d):
        raise TypeError(_no_gradient(layer))
    (rows, columns), (rows0, columns0) = _unfolded(layer, a, b), _unfolded(layer, a0, b0)
    if _gram_is_smaller(rows, columns):
        inner = (torch.bmm(rows.mT, rows0) * torch.bmm(columns.mT, columns0)).flatten(1).sum(1)
    else:
        inner = (torch.bmm(rows, columns.mT) * torch.bmm(rows0, columns0.mT)).flatten(1).sum(1)
    if layer.bias is not None:
        inner = inner + (b.sum((2, 3)) * b0.sum((2, 3))).sum(1)
    return inner


def _layer_products(
    layer: nn.Module, a: Tensor, b: Tensor, target: Iterator[Tensor]
) -> tuple[Tensor, Tensor]:
    """Per sample: <t_layer, g_layer> and |g_layer|^2, for input a and output gradient b of one layer."""
    if isinstance(layer, nn.BatchNorm2d):
        weight, bias = _norm_gradient(layer, a, b)
        t_weight, t_bias = next(target), next(target)
        return weight @ t_weight + bias @ t_bias, weight.square().sum(1) + bias.square().sum(1)
    if not isinstance(layer, nn.ConvTranspose2d):
        raise TypeError(_no_gradient(layer))
    t_weight, padding = next(target), layer.padding
    assert isinstance(padding, tuple)  # a transposed convolution's is never "same" or "valid"
    forward = F.conv_transpose2d(a, t_weight, None, layer.stride, padding)
    dot = (forward * b).flatten(1).sum(1)
    rows, columns = _unfolded(layer, a, b)
    if _gram_is_smaller(rows, columns):
        square = (torch.bmm(rows.mT, rows) * torch.bmm(columns.mT, columns)).flatten(1).sum(1)
    else:
        square = torch.bmm(rows, columns.mT).flatten(1).square().sum(1)
    if layer.bias is not None:
        bias = b.sum((2, 3))
        dot, square = dot + bias @ next(target), square + bias.square().sum(1)
    return dot, square


def _norm_gradient(layer: nn.BatchNorm2d, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Per sample (N, C): gradients of a batch-norm layer's weight and bias, in eval mode."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    scale = torch.rsqrt(layer.running_var + layer.eps)[:, None, None]
    return (b * (a - layer.running_mean[:, None, None]) * scale).sum((2, 3)), b.sum((2, 3))


def _unfolded(layer: nn.ConvTranspose2d, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(N, Cin, HW) inputs and (N, Cout k k, HW) output gradients: the weight's gradient is their product."""
    padding = layer.padding
    assert isinstance(padding, tuple)
    return a.flatten(2), F.unfold(b, layer.kernel_size, padding=padding, stride=layer.stride)


def _gram_is_smaller(rows: Tensor, columns: Tensor) -> bool:
    """Whether Gram matrices over places cost less than per-sample gradients."""
    return rows.shape[2] * (rows.shape[1] + columns.shape[1]) < rows.shape[1] * columns.shape[1]


def _no_gradient(layer: nn.Module) -> str:
    return f"no per-sample gradient for {type(layer).__name__}: expected ConvTranspose2d, BatchNorm2d or Tanh"
