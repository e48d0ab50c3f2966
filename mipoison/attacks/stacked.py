"""Trains many decoders as one stacked network, so that one kernel call computes a layer of all members.

The transposed convolutions of M members become one grouped convolution, and their batch-norm layers become
one layer with M times the channels. Both are exact, as no channel depends on another member's. Adam works
element by element, so one optimiser for the stacked parameters is equivalent to M optimisers. Each member
keeps its own initialisation, data, loss, generator (with the same batches in the same order as alone) and
early stopping. Kernels may sum in another order than when a member is trained alone, so results agree up to
rounding, which training amplifies, but not bit by bit.

Shape suffixes: N samples, K classes, B batch, M members, C channels, H height, W width.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipoison.models.inversion import InversionNet, features
from mipoison.training import Job, Loss, OneCycleAdam, Validation, held_out_loss

log = logging.getLogger(__name__)

MOST = 32
"""Largest number of members in one stack, which bounds the memory of the activations."""

_STACKABLE = (nn.ConvTranspose2d, nn.BatchNorm2d, nn.Tanh)


def signature(job: Job) -> tuple[object, ...] | None:
    """A key that is equal for jobs that can be trained as one stack; None if a job must be trained alone.

    Jobs in a stack have the same architecture, device, steps, batch and optimiser. They may differ in
    features (log or raw, which are computed before the network), loss, number of pairs, augmentation and
    early stopping.
    """
    model = job.model
    if type(model) is not InversionNet or any(type(layer) not in _STACKABLE for layer in model.layers):
        return None
    if any(not p.requires_grad for p in model.parameters()):
        return None
    n = len(job.inputs)
    if n != len(job.targets) or n < 2 or not job.inputs.is_floating_point():
        return None  # when it is trained alone, it raises the appropriate error
    layers = tuple((repr(layer), *(tuple(p.shape) for p in layer.parameters())) for layer in model.layers)
    data = (job.inputs.device, job.inputs.dtype, tuple(job.inputs.shape[1:]), tuple(job.targets.shape[1:]))
    return (layers, data, job.steps, min(job.batch, n), job.lr, job.betas, job.amsgrad)


def grouped(jobs: Sequence[Job], most: int = MOST) -> list[list[int]]:
    """The indices of the jobs in each stack, at most ``most`` of them; stacks are in order of their first."""
    together: dict[object, list[int]] = {}
    for i, job in enumerate(jobs):
        together.setdefault(signature(job) or ("alone", i), []).append(i)
    return [rows[k : k + most] for rows in together.values() for k in range(0, len(rows), most)]


@dataclass(frozen=True)
class JobResult:
    """How one job ended.

    Attributes:
        error: the exception that it raised, or None.
        members: number of jobs that were trained together with it, itself included.
        seconds: its share of the time that they took.
    """

    error: Exception | None
    members: int
    seconds: float


def train_many(jobs: Sequence[Job], most: int = MOST) -> list[JobResult]:
    """Run all jobs, in stacks where possible; each job's model is then trained as after ``job.run()``.

    If a stack fails (a member's augmentation raises, or memory runs out), it is split into halves that start
    over, repeatedly if needed, so that only the job that causes the failure fails. Values that are not finite
    in one member do not affect the others.

    Args:
        jobs: the jobs. most: largest number of jobs in a stack.

    Returns:
        How each job ended, in the order of ``jobs``.
    """
    ran: dict[int, JobResult] = {}
    waiting = grouped(jobs, most)
    while waiting:
        rows = waiting.pop(0)
        before = [jobs[i].rng.get_state() for i in rows]
        start, failure = time.perf_counter(), None
        try:
            if len(rows) == 1:
                jobs[rows[0]].run()
            else:
                _train_stack([jobs[i] for i in rows])
        except Exception as error:
            if len(rows) > 1:
                log.warning("a stack of %d members failed, training it in halves: %s", len(rows), error)
                for i, state in zip(rows, before, strict=True):
                    jobs[i].rng.set_state(state)
                waiting[:0] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
                continue
            failure = error
        share = (time.perf_counter() - start) / len(rows)
        ran |= {i: JobResult(failure, len(rows), share) for i in rows}
    return [ran[i] for i in range(len(jobs))]


class Stack(nn.Module):
    """M inversion networks of one architecture as one network: (B, M, K) inputs to (B, M, C, H, W) images.

    The inputs are features, see :func:`mipoison.models.inversion.features`.

    Args:
        models: the members; their weights are copied.
    """

    def __init__(self, models: Sequence[InversionNet]) -> None:
        super().__init__()
        self.members = len(models)
        with torch.device("meta"):  # no initialisation: nothing drawn, nothing filled twice
            stacked = [_stacked_layer(layer, len(models)) for layer in models[0].layers]
        self.layers = nn.Sequential(*stacked)
        states = [model.layers.state_dict() for model in models]
        merged = {
            k: v.clone() if v.ndim == 0 else torch.cat([s[k] for s in states]) for k, v in states[0].items()
        }
        self.layers.load_state_dict(merged, assign=True)
        self.layers.requires_grad_(True)

    def forward(self, z_BMK: Tensor) -> Tensor:
        out = torch.sigmoid(self.layers(z_BMK.flatten(1)[:, :, None, None]))
        return out.unflatten(1, (self.members, -1))

    @torch.no_grad()
    def state_of(self, member: int) -> dict[str, Tensor]:
        """A copy of one member's state, in the form of its own network's ``layers.state_dict()``."""
        return {
            k: v.clone() if v.ndim == 0 else v.detach().chunk(self.members)[member].clone()
            for k, v in self.layers.state_dict().items()
        }


def _stacked_layer(layer: nn.Module, members: int) -> nn.Module:
    if isinstance(layer, nn.ConvTranspose2d):
        return nn.ConvTranspose2d(
            layer.in_channels * members,
            layer.out_channels * members,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            groups=members,
        )
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(layer.num_features * members, eps=layer.eps, momentum=layer.momentum)
    return nn.Tanh()


class _Member:
    """The parts of the training loop that each member has for itself: drawing batches, early stopping."""

    def __init__(self, job: Job, size: int) -> None:
        self.job, self.size, self.n = job, size, len(job.inputs)
        # train() draws one number to seed the global generator (for dropout); draw it here too, so that the
        # batches are those of a member trained alone.
        torch.randint(0, 2**62, (1,), generator=job.rng)
        self.order = torch.empty(0, dtype=torch.int64)
        self.rows = self.order
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.stale, self.stopped = 0, False

    def draw(self) -> Tensor:
        """Rows of the next batch; a member that has stopped repeats its last batch and draws nothing."""
        if not self.stopped:
            if len(self.order) < self.size:
                self.order = torch.randperm(self.n, generator=self.job.rng)
            self.rows, self.order = self.order[: self.size], self.order[self.size :]
        return self.rows

    def check(self, validation: Validation, state: dict[str, Tensor]) -> None:
        """Keep the state if it is the best so far on the held-out pairs; stop when patience is exhausted."""
        self.job.model.layers.load_state_dict(state)  # type: ignore[union-attr]
        error = held_out_loss(self.job.model, self.job.loss, validation)
        if self.best is None or error < self.best[0]:
            self.best, self.stale = (error, state), 0
        else:
            self.stale += 1
            self.stopped = self.stale >= validation.patience


def _train_stack(jobs: Sequence[Job]) -> None:
    """The training loop of :func:`mipoison.training.train` for a stack of jobs with equal signatures."""
    order = sorted(range(len(jobs)), key=lambda i: [j.loss for j in jobs].index(jobs[i].loss))
    jobs = [jobs[i] for i in order]  # jobs with the same loss are adjacent, and their losses are one call
    first = jobs[0]
    members = [_Member(job, min(job.batch, len(job.inputs))) for job in jobs]
    stack = Stack([job.model for job in jobs])  # type: ignore[misc]
    stack.train()
    optimiser = OneCycleAdam(
        stack.parameters(), steps=first.steps, lr=first.lr, betas=first.betas, amsgrad=first.amsgrad
    )
    data = _Data(jobs)
    runs = _runs([job.loss for job in jobs])
    for step in range(1, first.steps + 1):
        rows_BM = torch.stack([member.draw() for member in members], 1)
        z_BMK, x_BMCHW = data.batch(rows_BM, [not member.stopped for member in members])
        optimiser.step(_total_loss(stack(z_BMK), x_BMCHW, runs))
        for i, member in enumerate(members):
            held = member.job.validation
            due = held is not None and (step % held.every == 0 or step == first.steps)
            if held is not None and due and not member.stopped:
                member.check(held, stack.state_of(i))
        if all(member.stopped for member in members):
            break
    for i, member in enumerate(members):
        state = stack.state_of(i) if member.best is None else member.best[1]
        member.job.model.layers.load_state_dict(state)  # type: ignore[union-attr]
        member.job.model.eval()


class _Data:
    """The pairs of all members on the device, so that two index operations give a batch of every member.

    A tensor of images that several members share is stored once.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs, self.device = jobs, jobs[0].inputs.device
        self.kinds = [str(job.model.kind) for job in jobs]
        self.changed = [i for i, job in enumerate(jobs) if job.augment is not None]
        self.inputs = torch.cat([features(j.inputs, k) for j, k in zip(jobs, self.kinds, strict=True)])
        self.input_start_M = _starts([len(job.inputs) for job in jobs])
        unique: dict[object, Tensor] = {}
        keys = [(job.targets.data_ptr(), job.targets.shape, job.targets.stride()) for job in jobs]
        for key, job in zip(keys, jobs, strict=True):
            unique.setdefault(key, job.targets)
        names = list(unique)
        starts = _starts([len(t) for t in unique.values()])
        self.targets = next(iter(unique.values())) if len(unique) == 1 else torch.cat(list(unique.values()))
        self.target_start_M = starts[torch.tensor([names.index(key) for key in keys])]

    def batch(self, rows_BM: Tensor, live_M: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """Features (B, M, K) and images (B, M, C, H, W).

        Args:
            rows_BM: rows in each member's own pairs. live_M: members that have not stopped.
        """
        z_BMK = self.inputs[(rows_BM + self.input_start_M).to(self.device)]
        for i in [i for i in self.changed if live_M[i]]:
            job, rows = self.jobs[i], rows_BM[:, i].to(self.device)
            assert job.augment is not None
            z_BMK[:, i] = features(job.augment(job.inputs[rows], job.rng), self.kinds[i])
        return z_BMK, self.targets[(rows_BM + self.target_start_M).to(self.device)]


def _starts(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths[:-1]]).cumsum(0)


def _runs(losses: Sequence[Loss]) -> list[tuple[Loss, int, int]]:
    """Groups of adjacent members with the same loss: (loss, first member, one past the last)."""
    runs: list[tuple[Loss, int, int]] = []
    for i, loss in enumerate(losses):
        if runs and runs[-1][0] == loss:
            runs[-1] = (loss, runs[-1][1], i + 1)
        else:
            runs.append((loss, i, i + 1))
    return runs


def _total_loss(output: Tensor, target: Tensor, runs: Sequence[tuple[Loss, int, int]]) -> Tensor:
    """Sum of the members' losses; each member's gradient is that of its own loss."""
    parts = []
    for loss, start, end in runs:
        out, x = output[:, start:end], target[:, start:end]
        if end - start == 1:
            parts.append(loss(out[:, 0], x[:, 0]))
        else:
            parts.append(torch.vmap(loss, in_dims=(1, 1))(out, x).sum())
    return torch.stack(parts).sum()
