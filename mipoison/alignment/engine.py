"""The interface of engines: what computes the gradient of the alignment objective in the confidence vectors.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mipoison.alignment.gradients import OBJECTIVES, Aligned, join
from mipoison.alignment.memory import chunk_of
from mipoison.config import choose
from mipoison.models.inversion import InversionNet

SCOPES = ("sample", "batch")
"""What is aligned with the target gradient: each sample's own gradient, or the mean gradient of the batch."""


class Engine:
    """Computes gradients of one alignment objective for one decoder and one target.

    A subclass implements :meth:`_samples` and :meth:`_batch`, the two scopes.

    Args:
        decoder: the substitute, in eval mode. target: its target gradient, in the order of its parameters.
        scope: see SCOPES. objective: see OBJECTIVES.

    Attributes:
        name: key in ``ENGINES``.
        tolerance: smallest cosine between a row of this engine's gradient and that of double backward in
            float64, unless the latter is zero; tests check it.
        live: working memory a sample needs, as a multiple of the decoder's activations (see memory.py).

    Raises:
        ConfigError: unknown scope or objective.
    """

    name: ClassVar[str]
    tolerance: ClassVar[float] = 0.999
    live: ClassVar[float] = 12.0

    def __init__(
        self, decoder: InversionNet, target: list[Tensor], *, scope: str = "sample", objective: str = "cosine"
    ) -> None:
        choose("alignment objective", objective, OBJECTIVES)
        choose("scope", scope, SCOPES)
        self.decoder, self.target, self.scope, self.objective = decoder, target, scope, objective
        self.dtype = next(decoder.parameters()).dtype

    def serves(self, decoder: InversionNet, target: list[Tensor]) -> bool:
        """Whether the engine was made for these very objects, and the decoder's dtype has not changed
        since."""
        return (
            self.decoder is decoder
            and self.target is target
            and self.dtype == next(decoder.parameters()).dtype
        )

    def align(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        """Cosines to the target, and the objective's gradient in the confidence vectors.

        Args:
            c_NK: confidence vectors. x_NCHW: their images.
        """
        if len(c_NK) == 0:
            return Aligned(c_NK.new_zeros(0), torch.zeros_like(c_NK), c_NK.new_zeros(0))
        if self.scope == "batch":
            return self._batch(c_NK, x_NCHW)
        size = chunk_of(self.decoder, self.live, c_NK.device)
        if len(c_NK) <= size:
            return self._samples(c_NK, x_NCHW)
        parts = [self._samples(c_NK[i : i + size], x_NCHW[i : i + size]) for i in range(0, len(c_NK), size)]
        return join(parts)

    def gradient(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        """The objective's gradient (N, K) in the confidence vectors, without the cosines."""
        return self.align(c_NK, x_NCHW).gradient_NK

    def values(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        """The objective (N,) at the confidence vectors, without its gradient."""
        return self.align(c_NK, x_NCHW).value_N

    def _samples(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        raise NotImplementedError

    def _batch(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        raise NotImplementedError
