"""Per-sample gradients in the parameters of one block, applied as linear maps without being formed.

Sample i has the gradient ``A_i^T P_i`` in the block's weight: its input A (positions, Cin), transposed, times
patches P (positions, k k C) of the output gradient. To apply that gradient as a weight takes the Gram matrix
``A A^T``, and its adjoint takes ``P P^T``. If there are few positions, these Gram matrices are smaller than
the gradient, which is then not formed.

Shape suffixes: N samples, C channels.
"""

from __future__ import annotations

from torch import Tensor

from mipoison.alignment.network import Network, Primal
from mipoison.alignment.unfold import fold_columns, unfold_map


class BlockGradients:
    """The part of each sample's gradient g that belongs to one block.

    Args:
        net: the decoder, prepared for hand-written passes.
        state: its forward and backward pass.
        i: index of the block.
        t: the target gradient's tensors of this block.

    Attributes:
        square_N: |g|^2 over the block's parameters.
        dot_N: <t, g> over the block's parameters, except the convolution's weight.
    """

    def __init__(self, net: Network, state: Primal, i: int, t: list[Tensor]) -> None:
        self.net, self.block, self.t, self.first = net, net.blocks[i], t, i == 0
        delta, a = state.deltas[i], state.inputs[i]
        self.scale = self.block.scale.to(net.precision)[:, None, None]
        scaled = delta * self.scale if self.block.norm else delta
        if self.first:
            self.f, self.scaled = state.f, scaled
            self.rows_N = state.f.square().sum(1)
            self.columns_N = scaled.to(net.own).square().sum((1, 2, 3))
            self.square_N = self.rows_N * self.columns_N
        else:
            self.places = (a.shape[2], a.shape[3])
            self.a = a.permute(0, 2, 3, 1).flatten(1, 2)
            self.p = unfold_map(scaled, *self.block.geometry)
            self._products()
        self.dot_N = state.f.new_zeros(len(state.f))
        self._vectors(state.outputs[i], delta)

    def _products(self) -> None:
        (_, places, rows), columns = self.a.shape, self.p.shape[2]
        self.gram = 2 * places * (rows + columns) < 3 * rows * columns
        if self.gram:
            self.rows, self.columns = self.a @ self.a.mT, self.p @ self.p.mT
            product = self.rows.to(self.net.own) * self.columns
        else:
            self.weight = self.a.mT @ self.p
            product = self.weight.to(self.net.own).square()
        self.square_N = product.sum((1, 2))

    def _vectors(self, n: Tensor, delta: Tensor) -> None:
        """Gradients in the weight and bias of the batch-norm, or in the bias of the convolution."""
        own, t, block = self.net.own, self.t, self.block
        if block.n_parameters == 1:
            return
        self.beta_NC = delta.sum((2, 3), dtype=own)
        self.square_N = self.square_N + self.beta_NC.square().sum(1)
        self.dot_N = self.beta_NC @ t[-1]
        if block.norm:
            product_NC = (delta * n).sum((2, 3), dtype=own)
            self.gamma_NC = (product_NC - block.beta * self.beta_NC) / block.gamma
            self.square_N = self.square_N + self.gamma_NC.square().sum(1)
            self.dot_N = self.dot_N + self.gamma_NC @ t[1]

    def vary(self, beta_N: Tensor, alpha_N: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The effect of the direction ``v = beta t - alpha g`` in batch-norm and bias on the passes.

        Returns:
            kappa and offset, (N, C, 1, 1) or None if the block has no such parameters: the block's output
            changes by ``kappa n + offset``, and the gradient passed to the block below by ``kappa delta``.
        """
        if self.block.n_parameters == 1:
            return None, None
        offset_NC = beta_N[:, None] * self.t[-1] - alpha_N[:, None] * self.beta_NC
        kappa = None
        if self.block.norm:
            v_NC = beta_N[:, None] * self.t[1] - alpha_N[:, None] * self.gamma_NC
            kappa_NC = v_NC / self.block.gamma
            offset_NC = offset_NC - kappa_NC * self.block.beta
            kappa = kappa_NC.to(self.net.precision)[:, :, None, None]
        return kappa, offset_NC.to(self.net.precision)[:, :, None, None]

    def subtract_forward(self, n_dot: Tensor, alpha_N: Tensor) -> None:
        """Subtract from ``n_dot``, in place, alpha_i times the block's input convolved with g_i as weight."""
        if self.first:
            factor_N = (alpha_N * self.rows_N).to(self.net.precision)
            n_dot.addcmul_(factor_N[:, None, None, None] * self.scale, self.scaled, value=-1)
            return
        a3 = alpha_N[:, None, None].to(self.net.precision)
        columns = (a3 * self.rows) @ self.p if self.gram else self.a @ (a3 * self.weight)
        out = fold_columns(columns, self.places, *self.block.geometry)
        if self.block.norm:
            n_dot.addcmul_(out, self.scale, value=-1)
        else:
            n_dot -= out

    def adjoint(self, alpha_N: Tensor) -> Tensor:
        """alpha_i times the adjoint of that convolution, applied to the block's output gradient.

        Its shape is that of the block's input.
        """
        if self.first:
            return (alpha_N * self.columns_N)[:, None] * self.f
        a3 = alpha_N[:, None, None].to(self.net.precision)
        rows = (a3 * self.columns) @ self.a if self.gram else self.p @ (a3 * self.weight).mT
        return rows.unflatten(1, self.places).permute(0, 3, 1, 2)
