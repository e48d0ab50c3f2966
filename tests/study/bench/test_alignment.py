"""The benchmark of LPA's searches, on its quick size; and its bar by a slow loop."""

from __future__ import annotations

import torch

from mipoison.alignment.engine import Engine
from mipoison.randomness import generator
from mipoison.simplex import label_of
from study.bench.alignment import LENGTHS, SCALES, alignment, best_drawn, drawn


class First(Engine):
    """An objective without a decoder: the first score."""

    def __init__(self) -> None:
        pass

    def values(self, c_NK: torch.Tensor, x_NCHW: torch.Tensor) -> torch.Tensor:
        return c_NK[:, 0]


def test_the_best_drawn_is_the_least_of_all_and_all_lie_within_the_budget() -> None:
    c = torch.softmax(4 * torch.randn(9, 5, generator=generator(0)), 1)
    rng, n = generator(1), 3 * (len(LENGTHS) + len(SCALES))
    every = torch.stack([drawn(c, 0.02, i, rng) for i in range(n)])
    assert float((every - c).norm(dim=2).max()) <= 0.02 + 1e-6
    assert all(torch.equal(label_of(z), label_of(c)) for z in every)
    best = best_drawn(First(), c, c, 0.02, n, generator(1))
    assert torch.equal(best[:, 0], every[:, :, 0].amin(0))


def test_rows_say_what_was_reached_and_what_it_cost() -> None:
    rows = list(alignment(quick=True, repeats=1))
    assert [row.case.split(": ")[1].split(",")[0] for row in rows] == [
        "descent", "restarts", "best of 8", "restarts",
    ]  # fmt: skip
    _, restarts, best, seconds = rows
    assert restarts.baseline == best.value
    assert restarts.holds == (restarts.value >= best.value)
    assert seconds.ratio is not None
    assert seconds.holds == (seconds.value <= 3 * seconds.baseline)  # type: ignore[operator]
