"""What the answers alone show: whether they repeat, sum to one, lie on a grid, and move with the image.

Shape suffixes: N images, K classes, P probed images, R repetitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FLOAT32 = 1.2e-7
"""Relative distance of neighbouring float32 numbers near 1: what is closer may be equal."""
SAME = 2e-6
"""Differences up to this are numerical: the same image in another batch of a GPU."""
ROUGH = 0.5
"""Roughness above which an answer is no smooth function of the image."""
FAR = 0.15
"""A move of this l2 length by one grey level of one pixel leads to another answer."""
MOST_STEPS = 10_000
"""Finest grid that is looked for."""
BY_CHANCE = 1e-3
"""A grid is named if scores that lie on none would fit it with at most this probability."""


@dataclass(frozen=True)
class Probes:
    """What was seen.

    Attributes:
        answers: number of answers. classes: K.
        repeat_distance: largest l2 distance of two answers to one image. repeated: images asked again.
        sum_error: largest distance of a sum of scores to 1. negative: whether a score is below 0.
        decimals: most digits after the point that were printed.
        steps: the coarsest grid of multiples of 1/steps that all scores lie on; None: none of up to
            ``MOST_STEPS`` steps.
        distinct: different answers. most_of_label: most different answers that have one label.
        zeros: mean share of scores that are exactly 0. tied: the number of scores that are the least of their
            answer together, where it is the same in nearly all; else 0.
        jump: median l2 distance to the answer to a copy with one pixel changed by one grey level.
        largest_jump: the largest of them.
        roughness: median of ``|c2 - 2 c1 + c0| / |c1 - c0|`` over those that moved, c1 and c2 answers to
            changes by one and two grey levels: near 0 for a smooth function of the image, above 1 for noise.
            None: none moved.
        moved: share of near copies whose answer moved.
        steady: share of the surer half of the probed images (by their largest score) whose answer did not
            move, or moved twice as far for two grey levels.
        broken: longest move to a copy that is no smooth one.
        relabelled: near copies whose largest score is another one, a move of ``FAR`` or more away.
        hidden: different answers that are equal to others as float32, or on the grid that is named: digits
            in which no attacker of the audit looks.
        logits: whether attackers read the answers as logits.
    """

    answers: int
    classes: int
    repeat_distance: float
    repeated: int
    sum_error: float
    negative: bool
    decimals: int
    steps: int | None
    distinct: int
    most_of_label: int
    zeros: float
    tied: int
    jump: float
    largest_jump: float
    roughness: float | None
    moved: float
    steady: float
    broken: float
    relabelled: int
    hidden: int = 0
    logits: bool = False

    @property
    def repeats(self) -> bool:
        """Whether one image gets one answer."""
        return self.repeat_distance <= SAME

    @property
    def one_a_label(self) -> bool:
        """Whether all images of a label get one answer, so that answers tell the label alone."""
        return self.repeats and self.most_of_label == 1


def probe(c_NK: Array, repeats_PRK: Array, near_P3K: Array, decimals: int) -> Probes:
    """Look at the answers.

    Args:
        c_NK: to different images. repeats_PRK: to one image each, R times.
        near_P3K: to an image and to its copies changed by one and by two grey levels.
        decimals: most digits that were printed.
    """
    apart = repeats_PRK - repeats_PRK[:, :1]
    first_P, second_P = (near_P3K[:, 1] - near_P3K[:, 0], near_P3K[:, 2] - near_P3K[:, 0])
    jump_P, bend_P = np.linalg.norm(first_P, axis=1), np.linalg.norm(second_P - 2 * first_P, axis=1)
    moved_P = jump_P > SAME
    rough_P = moved_P & (bend_P > ROUGH * jump_P)
    relabelled_P = near_P3K[:, 0].argmax(1) != near_P3K[:, 1].argmax(1)
    sure_P = near_P3K[:, 0].max(1).argsort(kind="stable")[len(near_P3K) // 2 :]
    label_N = c_NK.argmax(1)
    distinct, index_N = np.unique(c_NK, axis=0, return_inverse=True)
    of_label = [len(np.unique(index_N[label_N == k])) for k in np.unique(label_N)]
    tied_N = (c_NK == c_NK.min(1, keepdims=True)).sum(1)
    common = int(np.median(tied_N))
    steps = grid_steps(c_NK)
    read_NK = c_NK.astype(np.float32) if steps is None else (c_NK * steps).round()
    return Probes(
        answers=len(c_NK),
        classes=c_NK.shape[1],
        repeat_distance=float(np.linalg.norm(apart, axis=2).max(initial=0.0)),
        repeated=len(repeats_PRK),
        sum_error=float(np.abs(c_NK.sum(1) - 1).max()),
        negative=bool((c_NK < 0).any()),
        decimals=decimals,
        steps=steps,
        distinct=len(distinct),
        most_of_label=max(of_label),
        zeros=float((c_NK == 0).mean()),
        tied=common if common >= 2 and float((tied_N == common).mean()) >= 0.95 else 0,
        jump=float(np.median(jump_P)) if len(jump_P) else 0.0,
        largest_jump=float(jump_P.max(initial=0.0)),
        roughness=float(np.median(bend_P[moved_P] / jump_P[moved_P])) if moved_P.any() else None,
        moved=float(moved_P.mean()) if len(moved_P) else 0.0,
        steady=float(1 - rough_P[sure_P].mean()) if len(sure_P) else 1.0,
        broken=float(jump_P[rough_P].max(initial=0.0)),
        relabelled=int((relabelled_P & (jump_P >= FAR)).sum()),
        hidden=len(distinct) - len(np.unique(read_NK, axis=0)),
    )


def grid_steps(c_NK: Array) -> int | None:
    """The least number of steps so that all scores are multiples of 1/steps, up to what float32 and printing
    lose. None if there is none up to ``MOST_STEPS``, or scores without a grid may lie on one by chance.

    Scores 0 and 1 lie on every grid: answers of these alone are a grid of one step.
    """
    value_V = np.unique(np.abs(c_NK))
    if not len(value_V) or value_V[-1] > 1 + FLOAT32:
        return None
    inner_V = value_V[(value_V > FLOAT32) & (value_V < 1 - FLOAT32)]
    if not len(inner_V):
        return 1
    few_V = inner_V[:: max(1, len(inner_V) // 8)]
    for steps in range(2, MOST_STEPS + 1):
        if _on_grid(few_V, steps) and _on_grid(inner_V, steps):
            free = min(len(inner_V), 100) * (1 - 1 / c_NK.shape[1])  # the others follow from the sum
            chance = steps * (2 * FLOAT32 * steps) ** free
            return steps if chance < BY_CHANCE else None
    return None


def _on_grid(value_V: Array, steps: int) -> bool:
    scaled_V = value_V * steps
    return bool((np.abs(scaled_V - scaled_V.round()) <= FLOAT32 * scaled_V).all())
