"""Forward over reverse: the derivative of the input gradient along a direction v in the parameters, by hand.

``grad_c <v, g(c)> = d/de grad_c L(c; theta + e v)`` at e = 0. It is computed by a forward-mode (tangent) pass
over the forward and backward pass that a Primal stores. No autograd graph is built, and gradients in the
parameters are computed only if v depends on them.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mipoison.alignment.gram import BlockGradients
from mipoison.alignment.network import Direction, Network, Primal, first_matrix


class Folded:
    """A direction cast to the precision of the passes once, for use in every descent step."""

    def __init__(self, net: Network, direction: Direction) -> None:
        self.first = first_matrix(direction.weights[0])
        self.first_bias = direction.biases[0]
        self.weights = [net.cast(w) for w in direction.weights]
        self.biases = [net.cast(b) for b in direction.biases]


def tangent(net: Network, state: Primal, v: Folded) -> Tensor:
    """``grad_c <v, g>`` of the summed losses, (N, K), for one direction v that all samples share."""
    last = len(net.blocks) - 1
    moved: list[Tensor] = []
    a_dot = state.f[:0]
    for i, block in enumerate(net.blocks):
        if i == 0:
            n_dot = net.cast_map(net.first_forward(state.f, v.first, v.first_bias))
        else:
            n_dot = block.forward(a_dot, net.weights[i], v.biases[i])
            n_dot = n_dot + block.forward(state.inputs[i], v.weights[i], None)
        moved.append(n_dot)
        if i < last:
            a_dot = n_dot * state.slopes[i]
    d_dot = net.cast_map(state.curve * moved[-1].to(net.own))
    for i in range(last, 0, -1):
        e_dot = net.blocks[i].adjoint(d_dot, net.weights[i])
        e_dot = e_dot + net.blocks[i].adjoint(state.deltas[i], v.weights[i])
        d_dot = _through_tanh(state, i, e_dot, moved[i - 1])
    gradient = net.first_adjoint(d_dot, net.first) + net.first_adjoint(state.deltas[0], v.first)
    return gradient * state.jacobian


def _through_tanh(state: Primal, i: int, e_dot: Tensor, n_dot: Tensor) -> Tensor:
    """The tangent of ``delta = e (1 - a^2)`` below block i: ``e' (1 - a^2) - 2 a n' delta``."""
    bend = state.inputs[i] * n_dot
    return torch.addcmul(e_dot * state.slopes[i - 1], bend, state.deltas[i - 1], value=-2)


def parameter_gradients(net: Network, state: Primal) -> list[Tensor]:
    """Gradient of the summed losses in the parameters, in the order of the target."""
    out: list[Tensor] = []
    for i, block in enumerate(net.blocks):
        delta = state.deltas[i]
        bias = delta.sum((0, 2, 3), dtype=net.own)
        if i == 0:
            rows = delta.to(net.own).permute(0, 2, 3, 1).flatten(1)
            folded = (state.f.mT @ rows).unflatten(1, (block.kernel, block.kernel, -1)).permute(0, 3, 1, 2)
        else:
            folded = torch.ops.aten.convolution_backward(
                delta, state.inputs[i], net.weights[i], None, [block.stride] * 2, [block.padding] * 2, [1, 1],
                True, [0, 0], 1, [False, True, False],
            )[1].to(net.own)  # fmt: skip
        out.append(block.scale[:, None, None] * folded)
        if block.norm:
            inner = (block.raw * folded).sum((0, 2, 3))
            out += [block.inverse * (inner - block.shift * bias), bias]
        elif block.n_parameters == 2:
            out.append(bias)
    return out


class SampleTerms:
    """Each sample's own gradient g_i, block by block (see BlockGradients), and tangent passes along it.

    Args:
        net: the decoder, prepared for hand-written passes.
        state: its forward and backward pass.
        target: the target gradient's tensors.
        along: the target's convolution weights, folded (:meth:`Network.fold_weights`).

    Attributes:
        dot_N: <t, g_i>. square_N: |g_i|^2.
    """

    def __init__(self, net: Network, state: Primal, target: list[Tensor], along: Folded) -> None:
        self.net, self.state, self.along = net, state, along
        self.dot_N, self.square_N = state.f.new_zeros(len(state.f)), state.f.new_zeros(len(state.f))
        self.moves: list[Tensor] = []  # the target's weights applied to each block's input
        self.owns: list[BlockGradients] = []
        rest = iter(target)
        for i, block in enumerate(net.blocks):
            own = BlockGradients(net, state, i, [next(rest) for _ in range(block.n_parameters)])
            if i == 0:
                move = net.cast_map(net.first_forward(state.f, along.first, None))
            else:
                move = block.forward(state.inputs[i], along.weights[i], None)
            self.moves.append(move)
            self.owns.append(own)
            self.dot_N += own.dot_N + (state.deltas[i] * move).sum((1, 2, 3), dtype=net.own)
            self.square_N += own.square_N

    def tangent(self, beta_N: Tensor, alpha_N: Tensor) -> Tensor:
        """``grad_c <beta_i t - alpha_i g_i, g_i>``, (N, K), where the left factor counts as constant."""
        net, state, last = self.net, self.state, len(self.net.blocks) - 1
        b4 = beta_N[:, None, None, None].to(net.precision)
        moved: list[Tensor] = []
        kappas: list[Tensor | None] = []
        a_dot = state.f[:0]
        for i, (block, own) in enumerate(zip(net.blocks, self.owns, strict=True)):
            kappa, offset = own.vary(beta_N, alpha_N)
            if i == 0:
                n_dot = b4 * self.moves[i]
            else:
                n_dot = block.forward(a_dot, net.weights[i], None).addcmul_(b4, self.moves[i])
            own.subtract_forward(n_dot, alpha_N)
            if kappa is not None:
                n_dot.addcmul_(kappa, state.outputs[i])
            if offset is not None:
                n_dot += offset
            moved.append(n_dot)
            kappas.append(kappa)
            if i < last:
                a_dot = n_dot * state.slopes[i]
        d_dot = net.cast_map(state.curve * moved[-1].to(net.own))
        for i in range(last, 0, -1):
            block, own, kappa = net.blocks[i], self.owns[i], kappas[i]
            wide = d_dot if kappa is None else torch.addcmul(d_dot, kappa, state.deltas[i])
            e_dot = block.adjoint(wide, net.weights[i])
            e_dot.addcmul_(b4, block.adjoint(state.deltas[i], self.along.weights[i]))
            e_dot -= own.adjoint(alpha_N)
            d_dot = _through_tanh(state, i, e_dot, moved[i - 1])
        kappa = kappas[0]
        wide = d_dot if kappa is None else torch.addcmul(d_dot, kappa, state.deltas[0])
        gradient = net.first_adjoint(wide, net.first) - self.owns[0].adjoint(alpha_N)
        gradient += beta_N[:, None] * net.first_adjoint(state.deltas[0], self.along.first)
        return gradient * state.jacobian
