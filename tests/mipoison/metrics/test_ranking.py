"""The order below the top score, against scipy, scikit-learn and all ways to break ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor

from mipoison.metrics.ranking import (
    RANKING_COLUMNS,
    below_the_top,
    ranking_metrics,
    tail_rank_correlation,
    top_agreement,
)


def vectors(n: int, k: int, seed: int, decimals: int | None = None) -> Tensor:
    c = torch.softmax(2 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed)).double(), 1)
    if decimals is None:
        return c
    c = (c * 10**decimals).round() + 1e-3
    return c / c.sum(1, keepdim=True)


def test_the_clean_label_is_taken_out_of_both() -> None:
    clean = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])  # the first maximum
    released = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    a, b = below_the_top(clean, released)
    assert a.tolist() == [pytest.approx([0.2, 0.3]), pytest.approx([0.4, 0.2])]
    assert b.tolist() == [pytest.approx([0.6, 0.1]), pytest.approx([0.2, 0.7])]


@pytest.mark.parametrize("decimals", [None, 2, 1])
def test_tail_rank_correlation_is_scipys(decimals: int | None) -> None:
    clean, released = vectors(40, 6, 0), vectors(40, 6, 1, decimals)
    rhos = []
    for a, b in zip(clean.numpy(), released.numpy(), strict=True):
        rest = np.arange(6) != a.argmax()
        constant = np.ptp(b[rest]) == 0
        rhos.append(0.0 if constant else spearmanr(a[rest], b[rest]).statistic)
    assert tail_rank_correlation(clean, released) == pytest.approx(np.mean(rhos), abs=1e-12)
    assert tail_rank_correlation(clean, clean) == pytest.approx(1)


def test_what_keeps_the_label_alone_has_no_order_and_the_agreement_of_chance() -> None:
    clean = vectors(30, 7, 0)
    one_hot = torch.eye(7).double()[clean.argmax(1)]
    assert tail_rank_correlation(clean, one_hot) == 0
    assert top_agreement(clean, one_hot, 2) == pytest.approx(1 / 6)
    assert top_agreement(clean, one_hot, 5) == pytest.approx(4 / 6)
    assert top_agreement(clean, clean, 2) == top_agreement(clean, clean, 5) == 1
    assert top_agreement(one_hot, clean, 5) == 1  # there was no order to keep
    assert top_agreement(one_hot, one_hot, 2) == pytest.approx(1)


def test_top_2_agreement_is_scikit_learns_accuracy_of_the_second_class() -> None:
    clean, released = vectors(80, 6, 0), vectors(80, 6, 1)
    a, b = below_the_top(clean, released)
    expected = top_k_accuracy_score(a.argmax(1).numpy(), b.numpy(), k=1, labels=range(5))
    assert top_agreement(clean, released, 2) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("m", [2, 3, 5])
def test_ties_are_broken_in_every_way(m: int) -> None:
    """The mean over all orders of the tied released scores; a tied clean score is as good as its equal."""
    clean, released = vectors(25, 6, 0, 1), vectors(25, 6, 3, 1)
    total = []
    for a, b in zip(*(t.numpy() for t in below_the_top(clean, released)), strict=True):
        allowed = {j for j in range(5) if (a > a[j]).sum() < m - 1}
        overlaps = []
        for order in itertools.permutations(range(5)):
            first = sorted(range(5), key=lambda j: (-b[j], order[j]))[: m - 1]
            overlaps.append(len(allowed & set(first)) / (m - 1))
        total.append(np.mean(overlaps))
    assert top_agreement(clean, released, m) == pytest.approx(np.mean(total), abs=1e-12)
    assert 0 < np.mean(total) < 1


def test_too_few_classes() -> None:
    two, five, six = (vectors(4, k, 0) for k in (2, 5, 6))
    assert ranking_metrics(two, two) == dict.fromkeys(RANKING_COLUMNS)
    assert ranking_metrics(five, five)["top5_agreement"] is None
    assert ranking_metrics(five, five)["top2_agreement"] == 1
    assert None not in ranking_metrics(six, six).values()
    with pytest.raises(ValueError, match="three classes"):
        tail_rank_correlation(two, two)
    with pytest.raises(ValueError, match="2 <= m < 5 classes, got m = 5"):
        top_agreement(five, five, 5)
    with pytest.raises(ValueError, match="differ in shape"):
        top_agreement(six, five, 2)
