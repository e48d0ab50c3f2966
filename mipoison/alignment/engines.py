"""The engines: different ways to compute the gradient of the alignment objective. ``ENGINES`` lists them.

They agree within their stated tolerance and differ in time and memory. An engine is made for one decoder and
one target and prepares what all descent steps share; see :class:`mipoison.alignment.engine.Engine`.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.alignment import finite_difference
from mipoison.alignment.compiled import SUFFIX, Compiled
from mipoison.alignment.double_backward import align_batch, align_samples, align_samples_loop
from mipoison.alignment.engine import SCOPES, Engine
from mipoison.alignment.forward_over_reverse import Folded, SampleTerms, parameter_gradients, tangent
from mipoison.alignment.gradients import Aligned, norm_of, objective_of, parameter_gradient, weights_of
from mipoison.alignment.memory import chunk_of, has_fast_bf16, multiply_adds
from mipoison.alignment.network import Network, fit_for_bf16
from mipoison.config import choose
from mipoison.models.inversion import InversionNet

LARGE = 2_000_000
"""Multiplications in a decoder's forward pass from which bfloat16 is the default; those of the scale
``quick`` have fewer."""

EngineName = Literal[
    "auto",
    "double-backward",
    "double-backward-loop",
    "finite-difference",
    "forward-over-reverse",
    "forward-over-reverse-bf16",
    "forward-over-reverse-compiled",
    "forward-over-reverse-bf16-compiled",
]
"""Type of a configuration's field: an engine, or ``auto`` for the fastest correct one
(:func:`default_engine`).

An engine whose name ends in ``-compiled`` runs through torch.compile, see compiled.py.
"""
COMPILED = {name + SUFFIX: name for name in ("forward-over-reverse", "forward-over-reverse-bf16")}
"""Name of a compiled engine -> the engine that it compiles."""


class DoubleBackward(Engine):
    """The reference: autograd differentiates the gradient; Gram matrices give the per-sample norms."""

    name = "double-backward"
    live = 16.0

    def _samples(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        return align_samples(self.decoder, self.target, c_NK, x_NCHW, self.objective)

    def _batch(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        return align_batch(self.decoder, self.target, c_NK, x_NCHW, self.objective)


class DoubleBackwardLoop(DoubleBackward):
    """One double backward a sample: simple and slow, for tests and benchmarks."""

    name = "double-backward-loop"

    def _samples(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        return align_samples_loop(self.decoder, self.target, c_NK, x_NCHW, self.objective)


class FiniteDifference(Engine):
    """Central differences of first-order gradients at theta +- h v; in sample scope, a v for each."""

    name = "finite-difference"
    live = 24.0

    def _samples(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        own = finite_difference.own_gradients(self.decoder, c_NK, x_NCHW)
        pairs, zero = list(zip(own, self.target, strict=True)), c_NK.new_zeros(())
        dot_N = sum(((g * t).flatten(1).sum(1) for g, t in pairs), zero)
        square_N = sum((g.flatten(1).square().sum(1) for g in own), zero)
        beta_N, alpha_N, cosine_N = weights_of(self.objective, dot_N, square_N, norm_of(self.target))
        value_N, _ = objective_of(self.objective, dot_N, square_N, norm_of(self.target))
        if self.objective == "frozen":
            gradient_NK = finite_difference.along_shared(self.decoder, self.target, c_NK, x_NCHW)
            return Aligned(cosine_N, (-beta_N[:, None] * gradient_NK).to(c_NK), value_N)
        v = [_column(beta_N, g) * t - _column(alpha_N, g) * g for g, t in pairs]
        gradient_NK = finite_difference.along_samples(self.decoder, v, c_NK, x_NCHW)
        return Aligned(cosine_N, -gradient_NK.to(c_NK), value_N)

    def _batch(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        g = parameter_gradient(self.decoder, c_NK, x_NCHW)
        v, cosine, value = direction_of(self.objective, self.target, g)
        gradient_NK = finite_difference.along_shared(self.decoder, v, c_NK, x_NCHW) / len(c_NK)
        n = len(c_NK)
        return Aligned(cosine.expand(n), -gradient_NK.to(c_NK), value.expand(n))

    def gradient(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        if self.objective != "frozen" or len(c_NK) == 0:
            return super().gradient(c_NK, x_NCHW)
        share = len(c_NK) if self.scope == "batch" else 1
        gradient_NK = finite_difference.along_shared(self.decoder, self.target, c_NK, x_NCHW)
        return -gradient_NK.to(c_NK) / (share * norm_of(self.target))


class ForwardOverReverse(Engine):
    """A hand-written forward-mode derivative of one forward and one backward pass, in the decoder's dtype."""

    name = "forward-over-reverse"
    precision: ClassVar[torch.dtype | None] = None

    def __init__(
        self, decoder: InversionNet, target: list[Tensor], *, scope: str = "sample", objective: str = "cosine"
    ) -> None:
        super().__init__(decoder, target, scope=scope, objective=objective)
        with torch.no_grad():
            self.net = Network(decoder, self.precision if fit_for_bf16(decoder) else None)
            self.weights = Folded(self.net, self.net.fold_weights(target))
            self.whole = Folded(self.net, self.net.fold(target))
            self.target_norm = norm_of(target)

    @torch.no_grad()
    def _samples(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        state = self.net.primal(c_NK, x_NCHW)
        terms = SampleTerms(self.net, state, self.target, self.weights)
        beta_N, alpha_N, cosine_N = weights_of(self.objective, terms.dot_N, terms.square_N, self.target_norm)
        if self.objective == "frozen":
            gradient_NK = beta_N[:, None] * tangent(self.net, state, self.whole)
        else:
            gradient_NK = terms.tangent(beta_N, alpha_N)
        return Aligned(cosine_N.to(c_NK), -gradient_NK.to(c_NK), self._value(terms).to(c_NK))

    def _value(self, terms: SampleTerms) -> Tensor:
        return objective_of(self.objective, terms.dot_N, terms.square_N, self.target_norm)[0]

    @torch.no_grad()
    def values(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        """In sample scope half the time of a gradient, as no tangent pass is made."""
        if self.scope == "batch" or len(c_NK) == 0:
            return super().values(c_NK, x_NCHW)
        size, parts = chunk_of(self.decoder, self.live, c_NK.device), []
        for i in range(0, len(c_NK), size):
            state = self.net.primal(c_NK[i : i + size], x_NCHW[i : i + size])
            parts.append(self._value(SampleTerms(self.net, state, self.target, self.weights)))
        return torch.cat(parts).to(c_NK)

    @torch.no_grad()
    def _batch(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        n, size = len(c_NK), chunk_of(self.decoder, self.live, c_NK.device)
        rows = [slice(i, i + size) for i in range(0, n, size)]
        states = [self.net.primal(c_NK[r], x_NCHW[r]) for r in rows[:1]]
        total = parameter_gradients(self.net, states[0])
        for r in rows[1:]:
            own = parameter_gradients(self.net, self.net.primal(c_NK[r], x_NCHW[r]))
            total = [a + b for a, b in zip(total, own, strict=True)]
        v, cosine, value = direction_of(self.objective, self.target, [g / n for g in total])
        folded = Folded(self.net, self.net.fold(v))
        if len(rows) > 1:  # run the passes again instead of storing them, so that memory is that of one chunk
            states.clear()
        parts = [
            tangent(self.net, states[0] if states else self.net.primal(c_NK[r], x_NCHW[r]), folded)
            for r in rows
        ]
        gradient_NK = -torch.cat(parts).to(c_NK) / n
        return Aligned(cosine.to(c_NK).expand(n), gradient_NK, value.to(c_NK).expand(n))

    @torch.no_grad()
    def gradient(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        if self.objective != "frozen" or len(c_NK) == 0:
            return super().gradient(c_NK, x_NCHW)
        share = len(c_NK) if self.scope == "batch" else 1
        size = chunk_of(self.decoder, self.live, c_NK.device)
        parts = [
            tangent(self.net, self.net.primal(c_NK[i : i + size], x_NCHW[i : i + size]), self.whole)
            for i in range(0, len(c_NK), size)
        ]
        return -torch.cat(parts).to(c_NK) / (share * self.target_norm.to(c_NK))


class ForwardOverReverseBF16(ForwardOverReverse):
    """As ForwardOverReverse with activations in bfloat16; features, logits and sums keep the decoder's dtype.

    The activations keep it too if a batch-norm channel has a scale close to zero, see ``fit_for_bf16``.
    """

    name = "forward-over-reverse-bf16"
    precision = torch.bfloat16
    live = 7.0


_ENGINES: tuple[type[Engine], ...] = (
    DoubleBackward,
    DoubleBackwardLoop,
    FiniteDifference,
    ForwardOverReverse,
    ForwardOverReverseBF16,
)
ENGINES: dict[str, type[Engine]] = {cls.name: cls for cls in _ENGINES}


def direction_of(
    objective: str, target: list[Tensor], g: list[Tensor]
) -> tuple[list[Tensor], Tensor, Tensor]:
    """(v, cosine, objective) of one gradient g, where v = beta t - alpha g with the weights of
    ``weights_of``."""
    dot = sum(((t * a).sum() for t, a in zip(target, g, strict=True)), g[0].new_zeros(()))
    square = sum((a.square().sum() for a in g), g[0].new_zeros(()))
    beta, alpha, cosine = weights_of(objective, dot, square, norm_of(target))
    value, _ = objective_of(objective, dot, square, norm_of(target))
    return [beta * t - alpha * a for t, a in zip(target, g, strict=True)], cosine, value


def _column(v_N: Tensor, like: Tensor) -> Tensor:
    return v_N.reshape(-1, *[1] * (like.dim() - 1))


def default_engine(
    device: torch.device | str, scope: str, features: str = "log", multiplications: int = 0
) -> str:
    """The engine that ``auto`` stands for, chosen from the measurements in study/PERFORMANCE.md.

    It is forward over reverse in the decoder's dtype. Activations are in bfloat16 if that is faster (a CPU
    with AMX, and a decoder with at least LARGE multiplications a pass) and does not make answers depend on
    the other rows of a request: on raw features, and in batch scope, where they depend on them anyway. On
    log features, eight bits of precision lead to other optima. These are as good on average, but the same
    query asked alone and among others would get answers that differ by a noticeable part of the budget.

    Args:
        device: where the engine runs. scope: see SCOPES. features: the decoder's input, ``log`` or ``raw``.
        multiplications: of one forward pass of the decoder, see memory.multiply_adds.
    """
    choose("scope", scope, SCOPES)
    steady = features == "raw" or scope == "batch"
    if steady and multiplications >= LARGE and has_fast_bf16(torch.device(device)):
        return ForwardOverReverseBF16.name
    return ForwardOverReverse.name


def make_engine(
    name: str,
    decoder: InversionNet,
    target: list[Tensor],
    *,
    scope: str = "sample",
    objective: str = "cosine",
) -> Engine:
    """Make an engine by name.

    Args:
        name: a key of ENGINES or COMPILED, or ``auto``; ``engine.name`` then says which engine was chosen.
        decoder, target, scope, objective: see :class:`~mipoison.alignment.engine.Engine`.

    Raises:
        ConfigError: an unknown engine, scope or objective.
    """
    if name == "auto":
        name = default_engine(target[0].device, scope, decoder.kind, multiply_adds(decoder))
    choose("engine", name, [*ENGINES, *COMPILED, "auto"])
    engine = ENGINES[COMPILED.get(name, name)](decoder, target, scope=scope, objective=objective)
    return Compiled(engine) if name in COMPILED else engine
