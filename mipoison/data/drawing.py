"""Draws the images of a part of a split, balanced over the classes."""

from __future__ import annotations

import numpy as np

Groups = list[np.ndarray]
"""For each class, the row numbers of its images."""


def halve_classes(groups: Groups) -> tuple[Groups, Groups]:
    """Divide each class into two halves; the odd image goes to either half in turn, which balances the
    totals."""
    first, second, turn = [], [], 0
    for rows in groups:
        first.append(rows[turn::2])
        second.append(rows[1 - turn :: 2])
        turn = (turn + len(rows)) % 2
    return first, second


def choose_rows(groups: Groups, quota: int | None, rng: np.random.Generator) -> np.ndarray:
    """Choose at most `quota` rows (None: all), spread evenly over the classes as far as their sizes allow.

    Returns:
        Row numbers in random order.
    """
    if not groups:
        return np.empty(0, np.int64)
    sizes = np.array([len(rows) for rows in groups])
    turn = rng.permutation(
        len(groups)
    )  # these classes come first if the quota is no multiple of their number
    goal = int(sizes.sum()) if quota is None else min(quota, int(sizes.sum()))
    taken = np.zeros_like(sizes)
    while left := goal - int(taken.sum()):
        waiting = turn[taken[turn] < sizes[turn]]
        waiting = waiting if left >= len(waiting) else waiting[:left]
        taken[waiting] += np.minimum(left // len(waiting), sizes[waiting] - taken[waiting])
    return rng.permutation(np.concatenate([rows[:n] for rows, n in zip(groups, taken, strict=True)]))
