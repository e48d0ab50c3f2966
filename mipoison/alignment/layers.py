"""Inner products of per-sample parameter gradients, layer by layer, without forming those gradients.

<t, g_i> takes one pass through the layer with t as its weight; |g_i|^2 takes the product of two Gram matrices
(the "ghost norm" of Goodfellow 2015, arXiv 1510.01799, and Li et al. 2022, arXiv 2110.05679).

Shape suffixes: N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def layer_inner(layer: nn.Module, a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> Tensor:
    """<g, g0> (N,) over one layer's parameters, of gradients g and g0 given by inputs a, a0 and output
    gradients b, b0 of the layer.

    Raises:
        TypeError: a layer other than ConvTranspose2d and BatchNorm2d.
    """
    if isinstance(layer, nn.BatchNorm2d):
        weight, bias = norm_gradient(layer, a, b)
        weight0, bias0 = norm_gradient(layer, a0, b0)
        return (weight * weight0).sum(1) + (bias * bias0).sum(1)
    if not isinstance(layer, nn.ConvTranspose2d):
        raise TypeError(no_gradient(layer))
    (rows, columns), (rows0, columns0) = unfolded(layer, a, b), unfolded(layer, a0, b0)
    if gram_is_smaller(rows, columns):
        inner = (torch.bmm(rows.mT, rows0) * torch.bmm(columns.mT, columns0)).flatten(1).sum(1)
    else:
        inner = (torch.bmm(rows, columns.mT) * torch.bmm(rows0, columns0.mT)).flatten(1).sum(1)
    if layer.bias is not None:
        inner = inner + (b.sum((2, 3)) * b0.sum((2, 3))).sum(1)
    return inner


def layer_products(layer: nn.Module, a: Tensor, b: Tensor, target: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """<t, g> (N,) and |g|^2 (N,) over one layer's parameters, for its input a and output gradient b.

    Args:
        target: the target gradient's tensors; those of this layer are taken from it.

    Raises:
        TypeError: a layer other than ConvTranspose2d and BatchNorm2d.
    """
    if isinstance(layer, nn.BatchNorm2d):
        weight, bias = norm_gradient(layer, a, b)
        t_weight, t_bias = next(target), next(target)
        return weight @ t_weight + bias @ t_bias, weight.square().sum(1) + bias.square().sum(1)
    if not isinstance(layer, nn.ConvTranspose2d):
        raise TypeError(no_gradient(layer))
    t_weight, padding = next(target), layer.padding
    assert isinstance(padding, tuple)  # a transposed convolution's is never "same" or "valid"
    forward = F.conv_transpose2d(a, t_weight, None, layer.stride, padding)
    dot = (forward * b).flatten(1).sum(1)
    rows, columns = unfolded(layer, a, b)
    if gram_is_smaller(rows, columns):
        square = (torch.bmm(rows.mT, rows) * torch.bmm(columns.mT, columns)).flatten(1).sum(1)
    else:
        square = torch.bmm(rows, columns.mT).flatten(1).square().sum(1)
    if layer.bias is not None:
        bias = b.sum((2, 3))
        dot, square = dot + bias @ next(target), square + bias.square().sum(1)
    return dot, square


def norm_gradient(layer: nn.BatchNorm2d, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Per-sample gradients (N, C) in the weight and the bias of a batch-norm layer in eval mode."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    scale = torch.rsqrt(layer.running_var + layer.eps)[:, None, None]
    return (b * (a - layer.running_mean[:, None, None]) * scale).sum((2, 3)), b.sum((2, 3))


def unfolded(layer: nn.ConvTranspose2d, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs (N, Cin, HW) and unfolded output gradients (N, Cout k k, HW), whose product is the gradient in
    the weight."""
    padding = layer.padding
    assert isinstance(padding, tuple)
    return a.flatten(2), F.unfold(b, layer.kernel_size, padding=padding, stride=layer.stride)


def gram_is_smaller(rows: Tensor, columns: Tensor) -> bool:
    """Whether Gram matrices over the positions HW cost less than the per-sample gradients."""
    return rows.shape[2] * (rows.shape[1] + columns.shape[1]) < rows.shape[1] * columns.shape[1]


def no_gradient(layer: nn.Module) -> str:
    """The error message for an unsupported layer."""
    return f"no per-sample gradient for {type(layer).__name__}: expected ConvTranspose2d, BatchNorm2d or Tanh"
