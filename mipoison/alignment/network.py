"""A decoder prepared for hand-written passes: batch-norm is folded into the convolutions.

In eval mode batch-norm is affine, so a block is ``a' = tanh(W' * a + b')`` with ``W' = gamma s W``,
``b' = beta - gamma s mu`` and ``s = 1 / sqrt(var + eps)``. Activations are channels-last. The first
convolution has one input pixel and is a matrix product in the decoder's own dtype, since log features are too
large for bfloat16; the others run in the precision asked for.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.alignment.unfold import channels_last, fold_columns
from mipoison.models.inversion import InversionNet, features

FEW = 4
"""Largest number of output channels for which a transposed convolution on a CPU is a matrix product, which is
then faster."""


@dataclass
class Block:
    """One transposed convolution and the batch-norm after it, if any. Vectors have length C, the output
    channels.

    Attributes:
        weight: W', (Cin, C, k, k). bias: b'. scale: gamma s, the factor from W to W'.
        raw: W. gamma, beta, shift, inverse: gamma, beta, mu and s of the batch-norm; without one 1, the
            convolution's bias, 0 and 1.
        norm: whether there is a batch-norm.
        stride, padding, kernel: of the convolution.
        n_parameters: how many tensors of the target gradient belong to the block.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    raw: Tensor
    gamma: Tensor
    beta: Tensor
    shift: Tensor
    inverse: Tensor
    norm: bool
    stride: int
    padding: int
    kernel: int
    n_parameters: int

    @property
    def geometry(self) -> tuple[int, int, int]:
        """Kernel, stride and padding."""
        return self.kernel, self.stride, self.padding

    def forward(self, a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The transposed convolution of a, with a weight and a bias other than the block's."""
        if weight.shape[1] <= FEW and a.device.type == "cpu":
            columns = a.permute(0, 2, 3, 1).flatten(1, 2) @ first_matrix(weight)
            out = fold_columns(columns, (a.shape[2], a.shape[3]), *self.geometry)
            return out if bias is None else out + bias[:, None, None]
        return F.conv_transpose2d(a, weight, bias, self.stride, self.padding)

    def adjoint(self, b: Tensor, weight: Tensor) -> Tensor:
        """The gradient in the input, for a gradient b in the output of the convolution."""
        return F.conv2d(b, weight, None, self.stride, self.padding)


@dataclass
class Primal:
    """The intermediate values of one forward and one backward pass; lists have one entry a block.

    Attributes:
        f: features (N, K). jacobian: df/dc, (N, K), as each feature depends on one score.
        inputs: a, the input of each block; the first is f as an image of one pixel.
        outputs: n, the output of each block before tanh; the last are the logits, in the decoder's dtype.
        slopes: 1 - a'^2, the derivative of each tanh.
        deltas: gradients of the summed losses in n.
        curve: derivative of the last delta in the logits.
        gradient: gradient of the summed losses in f, (N, K).
    """

    f: Tensor
    jacobian: Tensor
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    slopes: list[Tensor] = field(default_factory=list)
    deltas: list[Tensor] = field(default_factory=list)
    curve: Tensor = field(default_factory=lambda: torch.empty(0))
    gradient: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass
class Direction:
    """A direction in the decoder's parameters with batch-norm folded in, as in Block: weights and biases."""

    weights: list[Tensor]
    biases: list[Tensor]


class Network:
    """A decoder's blocks, and the passes through them.

    Args:
        decoder: in eval mode.
        precision: dtype of all activations except the first convolution's input; None means the decoder's.

    Raises:
        TypeError: layers other than ConvTranspose2d, BatchNorm2d and Tanh, or in an unexpected order.
    """

    def __init__(self, decoder: InversionNet, precision: torch.dtype | None = None) -> None:
        self.kind = decoder.kind
        self.blocks = _blocks(decoder)
        self.own = self.blocks[0].raw.dtype
        self.precision = precision or self.own
        self.weights = [self.cast(b.weight) for b in self.blocks]
        self.biases = [self.cast(b.bias) for b in self.blocks]
        self.first = first_matrix(self.blocks[0].weight)

    def cast(self, w: Tensor) -> Tensor:
        """A weight or vector in the dtype of the activations."""
        return channels_last(w.to(self.precision))

    def cast_map(self, a: Tensor) -> Tensor:
        """An activation in the dtype of the passes, channels-last."""
        return channels_last(a.to(self.precision))

    def fold_weights(self, vectors: list[Tensor]) -> Direction:
        """As :meth:`fold`, for the weights of the convolutions alone; all other parts count as zero."""
        weights = []
        rest = iter(vectors)
        for block in self.blocks:
            weight, *_ = [next(rest) for _ in range(block.n_parameters)]
            weights.append(block.scale[:, None, None] * weight)
        return Direction(weights, [torch.zeros_like(b.bias) for b in self.blocks])

    def fold(self, vectors: list[Tensor]) -> Direction:
        """The effect of a direction in the parameters on the folded weights and biases.

        Args:
            vectors: the direction, in the order of the target.
        """
        weights, biases = [], []
        rest = iter(vectors)
        for block in self.blocks:
            weight = next(rest)
            if block.norm:
                gamma, beta = next(rest), next(rest)
                factor = gamma * block.inverse
                weights.append(block.scale[:, None, None] * weight + factor[:, None, None] * block.raw)
                biases.append(beta - factor * block.shift)
            else:
                weights.append(weight)
                biases.append(next(rest) if block.n_parameters == 2 else torch.zeros_like(block.bias))
        return Direction(weights, biases)

    def first_forward(self, f: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        """The first block's convolution of one pixel, as a matrix product in the decoder's dtype."""
        n = (f @ matrix).unflatten(1, (self.blocks[0].kernel, self.blocks[0].kernel, -1))
        if bias is not None:
            n = n + bias
        return n.permute(0, 3, 1, 2)  # channels-last in memory already

    def first_adjoint(self, b: Tensor, matrix: Tensor) -> Tensor:
        """Gradient in f (N, K) for a gradient in the first convolution's output."""
        return b.to(self.own).permute(0, 2, 3, 1).flatten(1) @ matrix.mT

    def primal(self, c_NK: Tensor, x_NCHW: Tensor) -> Primal:
        """Run one forward and one backward pass, without autograd and without gradients in the weights."""
        f, jacobian = features_with_slope(c_NK.to(self.own), self.kind)
        state = Primal(f, jacobian)
        a = f[:, :, None, None]
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            state.inputs.append(a)
            if i == 0:
                n = self.cast_map(self.first_forward(f, self.first, block.bias))
            else:
                n = block.forward(a, self.weights[i], self.biases[i])
            state.outputs.append(n)
            if i < last:
                # On a CPU, tanh in bfloat16 is slower and less exact than through float32.
                a = torch.tanh(n.float()).to(n.dtype) if n.dtype == torch.bfloat16 else torch.tanh(n)
        logits = state.outputs[-1] = state.outputs[-1].to(self.own)
        p = torch.sigmoid(logits)
        slope, error = p * (1 - p), p - x_NCHW.to(self.own)
        share = 2 / x_NCHW[0].numel() if len(x_NCHW) else 0.0
        delta = share * error * slope
        state.curve = share * slope.square() + delta * (1 - 2 * p)
        one = torch.ones((), dtype=self.precision, device=f.device)
        for i in range(last, -1, -1):
            delta = self.cast_map(delta)
            state.deltas.insert(0, delta)
            if i == 0:
                state.gradient = self.first_adjoint(delta, self.first)
            else:
                d = torch.addcmul(one, state.inputs[i], state.inputs[i], value=-1)
                state.slopes.insert(0, d)
                delta = self.blocks[i].adjoint(delta, self.weights[i]) * d
        return state


def fit_for_bf16(decoder: InversionNet) -> bool:
    """Whether every batch-norm channel has a gamma of at least 1/32 of the layer's largest.

    The passes compute ``(n - beta) / gamma`` from the activation n. If gamma is smaller, too few of the eight
    bits of precision are left.
    """
    gammas = [layer.weight.detach().abs() for layer in decoder.layers if isinstance(layer, nn.BatchNorm2d)]
    return all(bool((g >= g.amax() / 32).all()) for g in gammas)


def features_with_slope(c_NK: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The decoder's input f and its derivative in each score.

    The derivative is 1 for raw features; for log features it is 1/c, or 0 where the feature is clamped.
    """
    f = features(c_NK, kind)
    if kind == "raw":
        return f, torch.ones_like(f)
    inside = (f > 0) & (c_NK >= torch.finfo(c_NK.dtype).tiny)
    return f, torch.where(inside, 1 / c_NK.clamp_min(torch.finfo(c_NK.dtype).tiny), 0.0)


def first_matrix(weight: Tensor) -> Tensor:
    """A first convolution's weight as a matrix (K, k k C): features times it are channels-last."""
    return weight.permute(0, 2, 3, 1).flatten(1).contiguous()


def _blocks(decoder: InversionNet) -> list[Block]:
    layers = list(decoder.layers)
    for layer in layers:
        if not isinstance(layer, nn.ConvTranspose2d | nn.BatchNorm2d | nn.Tanh):
            raise TypeError(
                f"no hand-written pass for {type(layer).__name__}: "
                "expected ConvTranspose2d, BatchNorm2d or Tanh"
            )
    blocks = []
    i = 0
    while i < len(layers):
        convolution = layers[i]
        rest = layers[i + 1 : i + 3]
        norm = rest[0] if rest and isinstance(rest[0], nn.BatchNorm2d) else None
        i += 1 + (norm is not None)
        ends = i == len(layers)
        if not isinstance(convolution, nn.ConvTranspose2d) or not (ends or isinstance(layers[i], nn.Tanh)):
            raise TypeError("no hand-written pass for this order of layers: expected convolution, norm, tanh")
        i += 1
        blocks.append(_block(convolution, norm))
    first = blocks[0]
    if (first.stride, first.padding) != (1, 0):
        raise TypeError("no hand-written pass: the first convolution must have stride 1 and no padding")
    return blocks


def _block(convolution: nn.ConvTranspose2d, norm: nn.BatchNorm2d | None) -> Block:
    padding = convolution.padding
    assert isinstance(padding, tuple)
    raw = convolution.weight.detach()
    ones, zeros = raw.new_ones(raw.shape[1]), raw.new_zeros(raw.shape[1])
    own = zeros if convolution.bias is None else convolution.bias.detach()
    common = dict(stride=convolution.stride[0], padding=padding[0], kernel=convolution.kernel_size[0])
    if norm is None:
        return Block(
            weight=raw, bias=own, scale=ones, raw=raw, gamma=ones, beta=own, shift=zeros, inverse=ones,
            norm=False, n_parameters=1 + (convolution.bias is not None), **common,
        )  # fmt: skip
    if convolution.bias is not None:
        raise TypeError("no hand-written pass for a convolution with a bias before a batch-norm")
    assert norm.running_mean is not None
    assert norm.running_var is not None
    inverse = torch.rsqrt(norm.running_var + norm.eps)
    gamma, beta, shift = _away_from_zero(norm.weight.detach()), norm.bias.detach(), norm.running_mean
    scale = gamma * inverse
    return Block(
        weight=scale[:, None, None] * raw, bias=beta - scale * shift, scale=scale, raw=raw, gamma=gamma,
        beta=beta, shift=shift, inverse=inverse, norm=True, n_parameters=3, **common,
    )  # fmt: skip


def _away_from_zero(gamma: Tensor) -> Tensor:
    """Raise each |gamma| to at least 1e-4 of the largest, since the passes divide by it.

    The effect on the gradient stays within the engines' tolerance.
    """
    floor = 1e-4 * gamma.abs().amax().clamp_min(1e-4)
    return torch.where(gamma.abs() >= floor, gamma, torch.where(gamma < 0, -floor, floor))
