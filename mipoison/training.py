"""The training loop of all models here. It takes its own random generator, and data on the device.

Shape suffixes: N samples, B batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mipoison.process import PROCESS_LOCK

MOST_AVERAGED = 0.5
"""Largest share of the steps over which :func:`train` averages weights and batch statistics."""

Loss = Callable[[Tensor, Tensor], Tensor]
Augment = Callable[[Tensor, torch.Generator], Tensor]


@contextlib.contextmanager
def seeded(rng: torch.Generator, device: torch.device) -> Iterator[None]:
    """A scope in which torch's global generators are seeded from ``rng``; afterwards they are restored.

    The generators belong to the process: other threads that seed them, or ask a classifier, wait meanwhile.
    """
    devices = [device] if device.type == "cuda" else []
    with PROCESS_LOCK, torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(torch.randint(0, 2**62, (1,), generator=rng)))
        yield


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all pixels."""
    return (output - target).square().mean()


def negative_psnr(output: Tensor, target: Tensor) -> Tensor:
    """``-PSNR = 10 log10 MSE`` in dB, for pixels in [0, 1]."""
    return 10 * torch.log10(mse(output, target).clamp_min(1e-12))


RECONSTRUCTION_LOSSES: dict[str, Loss] = {"mse": mse, "psnr": negative_psnr}


def one_cycle(step: int, steps: int, peak: float) -> float:
    """The learning rate of a step (0 to steps - 1): torch's ``OneCycleLR``, bit by bit.

    It rises from peak / 25 during the first 30 % of the steps, then falls to peak / 250,000, both along half
    a cosine (Smith 2018, arXiv 1708.07120). One step alone counts as the first of two.
    """
    low, total = peak / 25, max(steps, 2)
    top, end = 0.3 * total - 1, total - 1
    if step <= top:
        start, stop, part = low, peak, step / top
    else:
        start, stop, part = peak, low / 1e4, (step - top) / (end - top)
    return stop + (start - stop) / 2.0 * (math.cos(math.pi * part) + 1)


class OneCycleAdam:
    """Adam along one cycle of learning rates, bit by bit torch's ``Adam(fused=True)`` and ``OneCycleLR``.

    It calls the fused kernel itself: in networks as small as ours torch's two classes spend more time on
    finding their tensors than the kernel on all of them.

    The kernel walks through parameters, gradients and moments by their place in memory, whatever their
    strides: a gradient laid out in another order than its parameter trains wrongly, without an error.
    ``backward`` stores gradients in their parameters' layout (``torch.autograd.grad`` does not), and moments
    are made in it.

    Args:
        parameters: of one type and device. Those without a gradient in a step are left alone in it.
        steps: number of steps. lr: peak learning rate. betas, amsgrad: see ``torch.optim.Adam``.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        steps: int,
        lr: float,
        betas: tuple[float, float],
        amsgrad: bool,
    ) -> None:
        self.parameters = list(parameters)
        self.steps, self.lr, self.betas, self.amsgrad = steps, lr, betas, amsgrad
        self.done = 0
        self.states = [
            (*(torch.zeros_like(p) for _ in range(3)), torch.zeros((), dtype=torch.float32, device=p.device))
            for p in self.parameters
        ]

    def step(self, loss: Tensor) -> None:
        """Minimise a scalar by one step along its gradient."""
        for p in self.parameters:
            p.grad = None
        loss.backward()
        pairs = zip(self.parameters, self.states, strict=True)
        found = [(p, p.grad, *state) for p, state in pairs if p.grad is not None]
        rate = one_cycle(self.done, self.steps, self.lr)
        self.done += 1
        if not found:
            return
        parameters, gradients, means, squares, largest, counts = map(list, zip(*found, strict=True))
        with torch.no_grad():
            torch._foreach_add_(counts, 1)
            torch._fused_adam_(
                parameters, gradients, means, squares, largest if self.amsgrad else [], counts,
                lr=rate, beta1=self.betas[0], beta2=self.betas[1], weight_decay=0.0, eps=1e-8,
                amsgrad=self.amsgrad, maximize=False,
            )  # fmt: skip


@dataclass(frozen=True)
class Validation:
    """Held-out pairs for early stopping. The state with the lowest held-out loss is kept.

    Attributes:
        every: number of steps between checks. patience: checks without progress after which training stops.
    """

    inputs: Tensor
    targets: Tensor
    every: int
    patience: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """The arguments of one call of :func:`train`.

    The jobs of several attackers can be collected and trained together, see
    :func:`mipoison.attacks.stacked.train_many`.
    """

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    loss: Loss
    steps: int
    batch: int
    lr: float
    rng: torch.Generator
    betas: tuple[float, float] = (0.9, 0.999)
    amsgrad: bool = False
    augment: Augment | None = None
    validation: Validation | None = None

    def options(self) -> dict[str, Any]:
        """The keyword arguments of :func:`train`."""
        names = ("steps", "batch", "lr", "rng", "betas", "amsgrad", "augment", "validation")
        return {name: getattr(self, name) for name in names}

    def run(self) -> nn.Module:
        """Train this model alone."""
        return train(self.model, self.inputs, self.targets, self.loss, **self.options())


def train(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Loss,
    *,
    steps: int,
    batch: int,
    lr: float,
    rng: torch.Generator,
    betas: tuple[float, float] = (0.9, 0.999),
    amsgrad: bool = False,
    augment: Augment | None = None,
    average: float = 0.0,
    validation: Validation | None = None,
) -> nn.Module:
    """Train with Adam and return the model in eval mode.

    The learning rate rises during the first 30 % of the steps, then decays (one cosine cycle). Batches are
    drawn epoch by epoch without replacement. The last batch of an epoch is dropped if it is incomplete,
    unless it is the only one.

    Args:
        model: on the device of ``inputs``; trained in place.
        inputs: of N pairs.
        targets: of the same pairs.
        steps: number of Adam steps. batch: samples per step. lr: peak learning rate.
        rng: CPU generator for the order of the samples and for dropout.
        augment: changes each batch of inputs, e.g. by adding noise drawn from the generator; None: unchanged.
        average: the share of the steps, the last ones, after each of which the weights are taken; the model
            gets their mean, and that of the batch statistics (Izmailov et al. 2018, arXiv 1803.05407). At 0
            it keeps the last weights. In [0, 0.5], and 0 with a validation. Batch statistics of
            earlier steps are those of other weights: over all steps, their mean variance was three times what
            the mean of the weights has.
        validation: held-out pairs for early stopping; None: all steps are done.

    Raises:
        ValueError: for fewer than two samples (batch statistics need two), lengths that differ, or an
            average that is not possible.
    """
    if not 0 <= average <= MOST_AVERAGED or (average and validation is not None):
        raise ValueError(
            f"average = {average!r}: must be in [0, {MOST_AVERAGED}], and 0 with a validation: the batch "
            "statistics of earlier steps do not fit the mean of the weights"
        )
    n = len(inputs)
    if n != len(targets) or n < 2:
        raise ValueError(
            f"training needs at least 2 pairs of equal number, got {n} inputs and {len(targets)} targets"
        )
    device = inputs.device
    size = min(batch, n)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = OneCycleAdam(parameters, steps=steps, lr=lr, betas=betas, amsgrad=amsgrad)
    best: tuple[float, dict[str, Tensor]] | None = None
    stale = 0
    averaged: AveragedModel | None = None
    averaged_from = steps - round(average * steps)  # steps that are done before the first one averaged
    with seeded(rng, device):
        order: Tensor = torch.empty(0, dtype=torch.int64)
        model.train()
        for step in range(1, steps + 1):
            if len(order) < size:
                order = torch.randperm(n, generator=rng)
            rows, order = order[:size].to(device), order[size:]
            x = inputs[rows] if augment is None else augment(inputs[rows], rng)
            optimiser.step(loss(model(x), targets[rows]))
            if step > averaged_from:
                averaged = averaged or AveragedModel(model, use_buffers=True)
                averaged.update_parameters(model)
            if validation is not None and (step % validation.every == 0 or step == steps):
                score = held_out_loss(model, loss, validation)
                if best is None or score < best[0]:
                    best, stale = (score, {k: v.detach().clone() for k, v in model.state_dict().items()}), 0
                else:
                    stale += 1
                    if stale >= validation.patience:
                        break
                model.train()
    if best is not None:
        model.load_state_dict(best[1])
    if averaged is not None:
        model.load_state_dict(averaged.module.state_dict())
    return model.eval()


@torch.no_grad()
def held_out_loss(model: nn.Module, loss: Loss, validation: Validation) -> float:
    """The loss of a model in eval mode on the held-out pairs."""
    model.eval()
    return float(loss(model(validation.inputs), validation.targets))


@torch.no_grad()
def apply(model: nn.Module, inputs: Tensor, *, batch: int = 512) -> Tensor:
    """Outputs of a model in eval mode, computed in fixed chunks."""
    model.eval()
    return torch.cat([model(inputs[i : i + batch]) for i in range(0, max(len(inputs), 1), batch)])
