"""Estimates the time of a run: a few decoder steps are timed on this device and multiplied."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from mipoison.data.datasets import DATASETS, parse_name
from mipoison.models.inversion import InversionConfig
from mipoison.randomness import generator
from mipoison.scene import SceneConfig
from mipoison.training import seeded

STEPS = 4
"""Number of steps timed; the first warms up and is left out."""
OVERHEAD = 1.6
"""Factor for poisoning, evaluation and preparation on top of training: the median over quick runs."""
DIFFUSION = 10.0
"""A diffusion attacker costs about ten decoders."""
CLASSES = 10


def seconds_per_step(scene: SceneConfig) -> float:
    """Time one training step of the scene's decoder on this device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    channels, height, width = DATASETS[parse_name(scene.dataset)[0]].image_shape
    shape = (channels or 3, height, width)
    rng = generator(0, "estimate")
    threads = torch.get_num_threads()
    torch.set_num_threads(scene.threads)
    try:
        with seeded(rng, device):
            model = InversionConfig(width=scene.decoder_width).make(shape, CLASSES).to(device)
        c_NK = torch.full((scene.decoder_batch, CLASSES), 1 / CLASSES, device=device)
        x_NCHW = torch.rand((scene.decoder_batch, *shape), generator=rng).to(device)
        took = []
        for _ in range(STEPS):
            began = time.perf_counter()
            (model(c_NK) - x_NCHW).square().mean().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            took.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return min(took[1:])


def expected_seconds(scene: SceneConfig, attacks: Iterable[str], seeds: int, max_concurrent: int) -> float:
    """Estimated seconds of the named attackers' episodes, within a factor of two.

    Args:
        max_concurrent: trials that run at once.
    """
    decoders = sum(DIFFUSION if name.startswith("diffusion") else 1.0 for name in attacks)
    return (
        OVERHEAD * decoders * seeds * scene.decoder_steps * seconds_per_step(scene) / max(1, max_concurrent)
    )


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
