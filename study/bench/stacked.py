"""Times the training of sixteen attackers of one architecture as a stack, against one by one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from mipoison.attacks.stacked import train_many
from mipoison.models.inversion import InversionConfig
from mipoison.randomness import generator
from mipoison.training import RECONSTRUCTION_LOSSES, Job, seeded

MEMBERS = 16
CLASSES = 10
GPU_BAR = 4.0


@dataclass(frozen=True)
class Size:
    """A decoder's training: image size, width, images a step, steps."""

    name: str
    image: int
    width: int
    batch: int
    steps: int


SIZES = (
    Size("digits quick", 16, 16, 32, 20),
    Size("mnist quick", 32, 16, 64, 8),
    Size("wide", 32, 32, 128, 3),
)
TINY = (Size("tiny", 16, 4, 16, 5),)


def jobs(size: Size, device: torch.device, n: int = 512) -> list[Job]:
    """Sixteen trainings like those of attackers: log and raw features, both losses, different vectors."""
    x_NCHW = torch.rand(n, 1, size.image, size.image, generator=generator(0, "images")).to(device)
    out = []
    for member in range(MEMBERS):
        rng = generator(member, "stacked benchmark")
        config = InversionConfig(features="raw" if member % 4 == 3 else "log", width=size.width)
        with seeded(rng, device):
            model = config.make((1, size.image, size.image), CLASSES).to(device)
        c_NK = torch.softmax(3 * torch.randn(n, CLASSES, generator=rng), 1).to(device)
        loss = RECONSTRUCTION_LOSSES["psnr" if member % 5 == 4 else "mse"]
        out.append(
            Job(
                model=model, inputs=c_NK, targets=x_NCHW, loss=loss, steps=size.steps, batch=size.batch,
                lr=1e-3, betas=(0.5, 0.999), amsgrad=True, rng=rng,
            )
        )  # fmt: skip
    return out


def _seconds(size: Size, device: torch.device, most: int) -> float:
    """Seconds of training all jobs: wall time on a GPU, CPU time otherwise (less sensitive to other load)."""
    members = jobs(size, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    ran = train_many(members, most=most)
    if device.type == "cuda":
        torch.cuda.synchronize()
    taken = clock() - start
    failed = [r.error for r in ran if r.error is not None]
    if failed:
        raise failed[0]
    return taken


def stacked(*, quick: bool = False, repeats: int = 5) -> Iterator[dict[str, Any]]:
    """One measurement per size: median seconds of the stack and its ratio to one by one, interleaved."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    for size in TINY if quick else SIZES:
        taken: dict[int, list[float]] = {1: [], MEMBERS: []}
        for turn in range(repeats + 1):
            for most, values in taken.items():
                seconds = _seconds(size, device, most)
                if turn:  # the first warms up
                    values.append(seconds)
        alone, together = statistics.median(taken[1]), statistics.median(taken[MEMBERS])
        ratio = alone / together
        yield {
            "benchmark": "stacked attackers",
            "case": f"{MEMBERS} as one stack, {size.name}",
            "value": together,
            "unit": "s",
            "repeats": repeats,
            "against": f"{MEMBERS} one by one",
            "baseline": alone,
            "ratio": ratio,
            "bar": f">= {GPU_BAR:g}x on a GPU",
            "holds": ratio >= GPU_BAR if gpu else None,
            "conditions": f"{size.image}x{size.image}, width {size.width}, {size.batch} images a step, "
            f"{size.steps} steps, {torch.get_num_threads()} CPU threads",
            "note": "Wall time." if gpu else "CPU time of the process.",
        }
