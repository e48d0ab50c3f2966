"""LFP: which rows it picks, what it reverses, and the fine-tuning within the budget."""

import pytest
import torch
from torch import Tensor

from mipoison.defenses.lfp import LFP, LFPConfig, pick_candidates, reverse_ranks
from mipoison.protocols import DefenderView
from mipoison.randomness import generator
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import ULP, fitted, protect, vectors

# ----------------------------------------------------------------------------------------------------- LFP


def slow_pick(c: list[list[float]], ratio: float, threshold: float) -> set[int]:
    """Below the threshold first: round after round, each label gives its least confident one left."""
    wanted = round(ratio * len(c))
    picked: list[int] = []
    for side in (False, True):
        queues: dict[int, list[int]] = {}
        for i in sorted(range(len(c)), key=lambda i: (max(c[i]), i)):
            if (max(c[i]) >= threshold) == side:
                queues.setdefault(c[i].index(max(c[i])), []).append(i)
        while any(queues.values()):
            turn = sorted((q.pop(0) for q in queues.values() if q), key=lambda i: (max(c[i]), i))
            picked += turn
    return set(picked[:wanted])


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.25, 0.5, 0.97])
@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("n", [1, 7, 50, 101])
def test_lfp_picks_as_the_slow_reference(n: int, ratio: float, threshold: float) -> None:
    c = vectors(n, 4, seed=n)
    c[: n // 3] = c[0]  # ties
    picked = pick_candidates(c, ratio, threshold)
    assert int(picked.sum()) == round(ratio * n)
    assert set(picked.nonzero().flatten().tolist()) == slow_pick(c.tolist(), ratio, threshold)


def test_lfp_picks_are_balanced_over_the_labels() -> None:
    c = vectors(400, 4)
    picked = pick_candidates(c, 0.1, 1.0)
    counts = torch.bincount(label_of(c)[picked], minlength=4)
    assert int(counts.sum()) == 40
    assert int(counts.max() - counts.min()) <= 1
    for label in range(4):
        own = label_of(c) == label
        chosen, left = c[own & picked].amax(1), c[own & ~picked].amax(1)
        assert float(chosen.max()) <= float(left.min())  # least confident first


def test_lfp_tops_up_above_the_threshold_only_when_it_must() -> None:
    c = vectors(100, 4)
    top = c.amax(1)
    threshold = float(top.sort().values[10])  # ten candidates
    picked = pick_candidates(c, 0.3, threshold)
    assert int(picked.sum()) == 30
    assert bool(picked[top < threshold].all())


@pytest.mark.parametrize(
    ("row", "reversed_row", "swapped_row"),
    [
        ([0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5], [0.05, 0.5, 0.15, 0.3]),
        ([0.1, 0.6, 0.3], [0.6, 0.1, 0.3], [0.3, 0.1, 0.6]),
        ([0.7, 0.3], [0.3, 0.7], [0.3, 0.7]),
    ],
)
def test_lfp_reversal_by_hand(row: list[float], reversed_row: list[float], swapped_row: list[float]) -> None:
    # Swap, first row: exchange the top two (.3 .5 .15 .05), keep .5, reverse .3 .15 .05 over classes 0, 2, 3.
    c = torch.tensor([row])
    torch.testing.assert_close(reverse_ranks(c, swap=False), torch.tensor([reversed_row]))
    torch.testing.assert_close(reverse_ranks(c, swap=True), torch.tensor([swapped_row]))


def test_lfp_reversal_reverses_every_rank() -> None:
    c = vectors(50, 6)
    z = reverse_ranks(c, swap=False)
    assert torch.equal(z.sort(1).values, c.sort(1).values)
    assert torch.equal(z.argsort(1), c.argsort(1, descending=True))
    swapped = reverse_ranks(c, swap=True)
    assert torch.equal(label_of(swapped), c.argsort(1, descending=True)[:, 1])
    assert torch.equal(swapped.sort(1).values, c.sort(1).values)


@pytest.mark.parametrize("swap", [False, True])
def test_lfp_stays_within_its_budget_of_the_reversed_vector(
    easy: tuple[DefenderView, Tensor, Tensor], swap: bool
) -> None:
    view, c, x = easy
    defense = fitted("lfp", view, picks="request", ratio=0.4, swap=swap, budget=0.03)
    picked = defense.pick(c)
    assert int(picked.sum()) == 16
    z, centre = protect(defense, c, x), reverse_ranks(c[picked], swap)
    assert torch.equal(z[~picked], c[~picked])
    assert float((z[picked] - centre).norm(dim=1).max()) <= 0.03 + 2 * ULP
    assert torch.equal(label_of(z[picked]), label_of(centre))
    assert bool((label_of(z[picked]) != label_of(c[picked])).all())


@pytest.mark.parametrize("changes", [{"budget": 0.0}, {"rounds": 0}])
def test_lfp_without_fine_tuning_only_reverses(
    easy: tuple[DefenderView, Tensor, Tensor], changes: dict
) -> None:
    view, c, x = easy
    defense = fitted("lfp", view, picks="request", ratio=0.4, **changes)
    picked = defense.pick(c)
    z = protect(defense, c, x)
    assert torch.equal(z[picked], reverse_ranks(c[picked], swap=False))


def test_lfp_fine_tuning_aligns_candidates_and_clean_rest_together(
    easy: tuple[DefenderView, Tensor, Tensor],
) -> None:
    view, c, x = easy
    plain = fitted("lfp", view, picks="request", ratio=0.4, budget=0.0)
    tuned = fitted("lfp", view, picks="request", ratio=0.4, budget=0.1, rounds=15, step=0.3)
    assert isinstance(tuned, LFP)
    before, after = (tuned.alignment(protect(d, c, x), x) for d in (plain, tuned))
    assert before is not None
    assert after is not None
    assert after > before


def test_lfp_keeps_a_chunk_without_candidates(easy: tuple[DefenderView, Tensor, Tensor]) -> None:
    view, c, x = easy
    defense = LFPConfig().make()
    defense.fit(view, rng=generator(0))
    assert torch.equal(protect(defense, c, x, torch.zeros(len(c), dtype=torch.bool)), c)
