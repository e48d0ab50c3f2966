"""The training loop of all models here. It takes its own random generator, and data on the device.

Shape suffixes: N samples, B batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mipoison.process import PROCESS_LOCK

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
        validation: held-out pairs for early stopping; None: all steps are done.

    Raises:
        ValueError: for fewer than two samples (batch statistics need two), or lengths that differ.
    """
    n = len(inputs)
    if n != len(targets) or n < 2:
        raise ValueError(
            f"training needs at least 2 pairs of equal number, got {n} inputs and {len(targets)} targets"
        )
    device = inputs.device
    size = min(batch, n)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(
        parameters, lr=lr, betas=betas, amsgrad=amsgrad, fused=device.type in ("cpu", "cuda")
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lr, total_steps=max(steps, 2), cycle_momentum=False
    )
    best: tuple[float, dict[str, Tensor]] | None = None
    stale = 0
    with seeded(rng, device):
        order: Tensor = torch.empty(0, dtype=torch.int64)
        model.train()
        for step in range(1, steps + 1):
            if len(order) < size:
                order = torch.randperm(n, generator=rng)
            rows, order = order[:size].to(device), order[size:]
            x = inputs[rows] if augment is None else augment(inputs[rows], rng)
            optimiser.zero_grad(set_to_none=True)
            loss(model(x), targets[rows]).backward()
            optimiser.step()
            schedule.step()
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
