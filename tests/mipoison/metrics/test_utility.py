"""What the released vectors are still good for: against loops, scikit-learn, scipy and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from sklearn.metrics import accuracy_score
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.classification import multiclass_calibration_error

from mipoison.metrics import (
    accuracy,
    confidence_distortion,
    expected_calibration_error,
    kl_divergence,
    label_agreement,
    rank_correlation,
    share_recognised,
    utility_metrics,
)


def vectors(n: int, k: int, seed: int, sharp: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(sharp * torch.randn(n, k, generator=generator), dim=1)


def labels(n: int, k: int, seed: int) -> torch.Tensor:
    return torch.randint(k, (n,), generator=torch.Generator().manual_seed(seed))


# --- utility


def test_accuracy_is_scikit_learns_and_takes_the_first_maximum():
    c, y = vectors(200, 7, 0), labels(200, 7, 1)
    assert accuracy(c, y) == pytest.approx(accuracy_score(y, c.numpy().argmax(1)), abs=1e-12)
    tied = torch.tensor([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    assert accuracy(tied, torch.tensor([0, 1])) == 1.0
    assert accuracy(tied, torch.tensor([1, 2])) == 0.0
    logits = torch.tensor([[-5.0, 3.0], [90.0, 3.0]])  # scores of any scale
    assert accuracy(logits, torch.tensor([1, 1])) == 0.5


def test_confidence_distortion_against_a_float64_loop():
    clean, released = vectors(60, 5, 0), vectors(60, 5, 1)
    loop = [
        math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(r, c, strict=True)))
        for r, c in zip(released, clean, strict=True)
    ]
    assert confidence_distortion(clean, released) == pytest.approx(np.mean(loop), rel=1e-12)
    corners = torch.eye(4)
    assert confidence_distortion(corners, corners.roll(1, 0)) == pytest.approx(math.sqrt(2))
    # A budget at the paper's scale survives: 1.5e-4 along (1, -1)/sqrt(2), up to float32 rounding.
    moved = clean.clone()
    moved[:, 0] += 1.5e-4 / math.sqrt(2)
    moved[:, 1] -= 1.5e-4 / math.sqrt(2)
    assert confidence_distortion(clean, moved) == pytest.approx(1.5e-4, rel=1e-3)


def test_label_agreement_counts_a_tie_with_an_earlier_class_as_flipped():
    clean = torch.tensor([[0.3, 0.7], [0.3, 0.7], [0.7, 0.3], [0.5, 0.5]])
    released = torch.tensor([[0.5, 0.5], [0.4, 0.6], [0.5, 0.5], [0.4, 0.6]])
    assert label_agreement(clean, released) == 0.5
    assert label_agreement(clean, clean) == 1.0


def test_kl_against_scipy_and_closed_forms():
    clean, released = vectors(80, 6, 0), vectors(80, 6, 1)
    reference = np.mean(
        [
            scipy.stats.entropy(p, q)
            for p, q in zip(clean.double().numpy(), released.double().numpy(), strict=True)
        ]
    )
    assert kl_divergence(clean, released) == pytest.approx(reference, rel=1e-9)
    assert kl_divergence(clean, clean) == 0.0
    # clean || released, not the other way round
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    assert kl_divergence(p, q) == pytest.approx(
        0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), rel=1e-6
    )


def test_kl_of_one_hot_answers_is_finite_at_its_stated_floor():
    clean = torch.tensor([[0.7, 0.3, 0.0]], dtype=torch.float64)
    one_hot = torch.tensor([[1.0, 0.0, 0.0]])
    assert kl_divergence(clean, one_hot) == pytest.approx(
        0.7 * math.log(0.7) + 0.3 * math.log(0.3 / 1e-12), rel=1e-9
    )
    wrong = torch.tensor([[0.0, 1.0]])
    assert kl_divergence(torch.tensor([[1.0, 0.0]]), wrong) == pytest.approx(12 * math.log(10), rel=1e-9)
    assert kl_divergence(one_hot, one_hot) == 0.0


def test_kl_at_small_budgets_is_not_drowned_by_float32_sums():
    # KL(p || p + d) = sum d^2 / 2p + O(d^3); at |d| = 1e-4 it is about 1e-8, the rounding of a float32 sum.
    clean = vectors(4000, 5, 0, sharp=0.5)
    direction = torch.tensor([1.0, -1.0, 0.0, 0.0, 0.0], dtype=torch.float64) / math.sqrt(2)
    released = clean.double() + 1e-4 * direction
    expected = ((released - clean.double()) ** 2 / (2 * clean.double())).sum(1).mean().item()
    assert kl_divergence(clean, released.float()) == pytest.approx(expected, rel=0.02)


def test_ece_against_torchmetrics_and_by_hand():
    c, y = vectors(500, 5, 0), labels(500, 5, 1)
    for bins in (1, 7, 15):
        reference = multiclass_calibration_error(c.double(), y, num_classes=5, n_bins=bins, norm="l1")
        assert expected_calibration_error(c, y, bins) == pytest.approx(float(reference), abs=1e-6)
    # two rows at 0.9, one right; one row at 0.6, right: (2/3)|0.5 - 0.9| + (1/3)|1 - 0.6| = 0.4
    c = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], dtype=torch.float64)
    assert expected_calibration_error(c, torch.tensor([0, 1, 0])) == pytest.approx(0.4)
    # in one bin they cancel to |2/3 - 0.8|: the bins are there
    assert expected_calibration_error(c, torch.tensor([0, 1, 0]), bins=1) == pytest.approx(0.8 - 2 / 3)
    # upper edges belong to their bin: 0.5 and 0.4 share a bin of (0, 1/2]; a perfect one-hot answer has ECE 0
    c = torch.tensor([[0.5, 0.25, 0.25], [0.4, 0.3, 0.3]], dtype=torch.float64)
    assert expected_calibration_error(c, torch.tensor([0, 1]), bins=2) == pytest.approx(abs(1 - 0.9) / 2)
    assert expected_calibration_error(torch.eye(3), torch.arange(3)) == 0.0


@pytest.mark.parametrize(
    ("n", "k", "decimals"), [(40, 2, 8), (40, 5, 2), (40, 10, 1), (20, 100, 3), (60, 4, 1)]
)
def test_rank_correlation_is_scipys_with_ties(n, k, decimals):
    clean = vectors(n, k, 0)
    rounded = (vectors(n, k, 1) * 10**decimals).round() + 1  # many ties
    released = rounded / rounded.sum(1, keepdim=True)
    rhos = []
    for a, b in zip(clean.numpy(), released.numpy(), strict=True):
        constant = len(set(a.tolist())) == 1 or len(set(b.tolist())) == 1
        rhos.append(0.0 if constant else scipy.stats.spearmanr(a, b).statistic)
    assert rank_correlation(clean, released) == pytest.approx(np.mean(rhos), abs=1e-12)


def test_rank_correlation_of_constant_and_reversed_rows():
    up = torch.tensor([[0.1, 0.2, 0.7]])
    uniform = torch.full((1, 3), 1 / 3)
    assert rank_correlation(up, up) == pytest.approx(1)
    assert rank_correlation(up, up.flip(1)) == pytest.approx(-1)
    assert (
        rank_correlation(up, uniform)
        == rank_correlation(uniform, up)
        == rank_correlation(uniform, uniform)
        == 0
    )
    both = torch.cat([up, up]), torch.cat([up, uniform])
    assert rank_correlation(*both) == pytest.approx(0.5)  # constant rows stay in the mean


class CountOps(TorchDispatchMode):
    """Counts the tensor operations run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_rank_correlation_does_not_loop_over_rows():
    counts = []
    for n in (10, 1000):
        with CountOps() as ops:
            rank_correlation(vectors(n, 6, 0), vectors(n, 6, 1))
        counts.append(ops.count)
    assert counts[0] == counts[1] > 0


def test_utility_metrics_names_and_directions():
    clean, y = vectors(300, 5, 0), labels(300, 5, 1)
    released = vectors(300, 5, 2, sharp=0.1)
    record = utility_metrics(clean, released, y)
    assert record == {
        "model_accuracy": accuracy(clean, y),
        "protected_accuracy": accuracy(released, y),
        "confidence_distortion": confidence_distortion(clean, released),
        "label_agreement": label_agreement(clean, released),
        "kl": kl_divergence(clean, released),
        "ece": expected_calibration_error(released, y),
        "rank_correlation": rank_correlation(clean, released),
    }
    assert all(type(value) is float for value in record.values())
    assert record["model_accuracy"] != record["protected_accuracy"]
    assert record["ece"] != expected_calibration_error(clean, y)


def test_inputs_are_left_untouched_and_gradients_do_not_matter():
    clean, released = vectors(20, 4, 0).requires_grad_(), vectors(20, 4, 1)
    before = clean.detach().clone(), released.clone()
    utility_metrics(clean, released, labels(20, 4, 0))
    assert torch.equal(clean, before[0])
    assert torch.equal(released, before[1])


@pytest.mark.parametrize(
    ("clean", "released", "message"),
    [
        (torch.eye(3), torch.eye(4), r"\(3, 3\), \(4, 4\)"),
        (torch.zeros(0, 3), torch.zeros(0, 3), r"non-empty.*\(0, 3\)"),
        (torch.full((5,), 0.2), torch.full((5,), 0.2), r"\(5,\)"),
        (
            torch.eye(3),
            torch.tensor([[math.nan, 1, 0], [0, 1, 0], [math.inf, 0, 1]]),
            "released.*2 of 3 rows",
        ),
        (torch.eye(2) * 3, torch.eye(2), "clean.*simplex.*2 away"),
        (torch.eye(2), torch.tensor([[1.5, -0.5], [0.5, 0.5]]), "released.*simplex.*-0.5"),
    ],
)
@pytest.mark.parametrize("metric", [confidence_distortion, label_agreement, kl_divergence, rank_correlation])
def test_vectors_that_are_none_raise(metric, clean, released, message):
    with pytest.raises(ValueError, match=message):
        metric(clean, released)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 1]), r"\(3,\).*\(2,\)"),
        (torch.tensor([0, 1, 3]), r"0\.\.2.*0\.\.3"),
        (torch.tensor([0, 1, -1]), r"0\.\.2.*-1\.\.1"),
        (torch.tensor([0.0, 1.0, 2.0]), "integers.*float32"),
    ],
)
def test_labels_that_are_none_raise(y, message):
    with pytest.raises(ValueError, match=message):
        accuracy(torch.eye(3), y)
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(torch.eye(3), y)
    with pytest.raises(ValueError, match=message):
        share_recognised(torch.eye(3), y)


def test_ece_needs_a_bin():
    with pytest.raises(ValueError, match=r"bins.*0"):
        expected_calibration_error(torch.eye(3), torch.arange(3), bins=0)
