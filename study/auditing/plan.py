"""Divides the budget: what is asked, in which order, and how many questions are left for attackers.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipoison.config import ConfigError
from study.auditing.images import LEAST, AuditImages

REPEATS = 2
"""How often a probed image is asked again."""
STEPS = (1, 2)
"""By how many grey levels one pixel of a probed image is changed."""
PROBED = (4, 24)
"""Least and most images that are probed in each way."""
SHARE = {"train": 0.3, "test": 0.15}
"""Most of the questions that go to private images."""
LEAST_QUERIES = 200


@dataclass(frozen=True)
class Plan:
    """What is asked.

    Attributes:
        rows: pool (public, train, test) -> the images of it that are asked, in this order.
        repeated: public images that are asked again. near: public images whose near copies are asked.
        left: questions for attackers that ask more.
    """

    rows: dict[str, np.ndarray]
    repeated: int
    near: int
    left: int


def planned(images: AuditImages, queries: int, rng: np.random.Generator) -> Plan:
    """The plan for a budget; it depends on numbers of images, the budget and ``rng`` alone.

    Raises:
        ConfigError: a budget too small to say anything.
    """
    if queries < LEAST_QUERIES:
        raise ConfigError(f"queries = {queries}: at least {LEAST_QUERIES}")
    probed = int(np.clip(queries // 80, *PROBED))
    left = queries - probed * (REPEATS + len(STEPS))
    rows = {}
    for pool, share in SHARE.items():
        if pool in images.private:
            n = min(len(images.private[pool]), max(LEAST, int(share * queries)))
            rows[pool] = rng.permutation(len(images.private[pool]))[:n]
    left -= sum(map(len, rows.values()))
    public = rng.permutation(len(images.public_NHWC))[:left]
    rows = {"public": public, **rows}
    probed = min(probed, len(public))
    return Plan(rows, probed, probed, left - len(public))


def near_copies(image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Copies (2, H, W, C) of an image, one value of it changed by one and by two grey levels."""
    at = int(rng.integers(image_HWC.size))
    up = 1 if image_HWC.reshape(-1)[at] < 128 else -1
    copies = np.stack([image_HWC] * len(STEPS))
    for copy, step in zip(copies, STEPS, strict=True):
        copy.reshape(-1)[at] = int(copy.reshape(-1)[at]) + up * step
    return copies
