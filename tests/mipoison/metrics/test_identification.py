"""Identification against a double loop, and the values that chance has exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.metrics import identification as module
from mipoison.metrics.identification import identification


def pool(n: int = 60, k: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images on a coarse grid (so that distances tie), some of them twice, and labels of all classes."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 3, (n, 1, 3, 2), generator=rng) / 2
    x[n // 2 : n // 2 + 5] = x[:5]
    label_N = torch.randint(k, (n,), generator=rng)
    label_N[n // 2 : n // 2 + 5] = label_N[:5]
    return x, label_N


def by_loops(rec: Tensor, x: Tensor, label_N: Tensor) -> tuple[float, float, float]:
    """Rate, mean reciprocal rank and AUC, image by image."""
    r, p, y = rec.flatten(1).double().numpy(), x.flatten(1).double().numpy(), label_N.numpy()
    rates, reciprocals, aucs = [], [], []
    for i in range(len(p)):
        same = [j for j in range(len(p)) if y[j] == y[i]]
        mu = p[same].mean(0)
        distances = {j: round(float(((p[j] - r[i]) ** 2).sum()), 9) for j in same}
        nearer = sum(d < distances[i] for d in distances.values())
        tied = sum(d == distances[i] for d in distances.values())
        ranks = range(nearer + 1, nearer + tied + 1)
        rates.append(np.mean([rank == 1 for rank in ranks]))
        reciprocals.append(np.mean([1 / rank for rank in ranks]))

        def correlation(j: int, mu: np.ndarray = mu, i: int = i) -> float:
            a, b = p[j] - mu, r[i] - mu
            scale = np.linalg.norm(a) * np.linalg.norm(b)
            return 0.0 if scale < 1e-9 else round(float(a @ b / scale), 9)

        others = [j for j in same if j != i]
        if others:
            wins = [np.sign(correlation(i) - correlation(j)) / 2 + 0.5 for j in others]
            aucs.append(np.mean(wins))
    return float(np.mean(rates)), float(np.mean(reciprocals)), float(np.mean(aucs))


@pytest.mark.parametrize("rows", [1024, 7])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_it_is_the_double_loop_with_ties(noise: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", rows)
    x, label_N = pool()
    rec = (x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    if noise:
        rec[::5] = x[:1]  # answers that tie with several images
    found = identification(rec, x, label_N)
    assert (found.rate, found.mrr, found.auc) == pytest.approx(by_loops(rec, x, label_N), abs=1e-12)
    assert found.chance == 4 / 60


def test_a_perfect_reconstruction_finds_every_image() -> None:
    x = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    label_N = torch.arange(50) % 3
    found = identification(x, x, label_N)
    assert (found.rate, found.mrr, found.auc, found.chance) == (1, 1, 1, 3 / 50)
    twins = identification(torch.cat([x, x]), torch.cat([x, x]), torch.cat([label_N, label_N]))
    assert twins.rate == 0.5  # two equal images share the first rank
    assert twins.mrr == pytest.approx(0.75)


@pytest.mark.parametrize("seed", range(5))
def test_the_label_alone_has_exactly_its_chance(seed: int) -> None:
    """Whatever image is answered for a label: the numbers are those of chance in every single pool."""
    x, label_N = pool(seed=seed)
    answer = torch.rand(4, 1, 3, 2, generator=torch.Generator().manual_seed(seed))
    found = identification(answer[label_N], x, label_N)
    assert found.rate == pytest.approx(found.chance, abs=1e-12)
    assert found.auc == pytest.approx(0.5, abs=1e-12)
    sizes = np.bincount(label_N.numpy())
    assert found.mrr == pytest.approx(sum(sum(1 / np.arange(1, n + 1)) for n in sizes) / 60, abs=1e-12)


def test_shuffled_reconstructions_are_at_chance_on_average() -> None:
    x = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    label_N = torch.arange(30) % 2
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        order = np.arange(30)
        for k in (0, 1):
            places = np.flatnonzero(label_N.numpy() == k)
            order[places] = rng.permutation(places)
        found.append(identification(x[torch.from_numpy(order)], x, label_N))
    assert np.mean([f.rate for f in found]) == pytest.approx(2 / 30, abs=4 * 0.046 / 300**0.5)
    assert np.mean([f.auc for f in found]) == pytest.approx(0.5, abs=0.01)


def test_only_images_of_the_same_label_are_compared() -> None:
    x, label_N = torch.zeros(4, 1, 1, 2), torch.tensor([0, 0, 1, 1])
    x[:, 0, 0, 0] = torch.tensor([0.0, 1.0, 0.1, 0.9])
    rec = x.clone()
    rec[0, 0, 0, 0] = 0.1  # is image 2 exactly, which has another label
    assert identification(rec, x, label_N).rate == 1


def test_images_alone_with_their_label_have_no_auc() -> None:
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = identification(x.flip(0), x, torch.arange(3))
    assert (found.rate, found.mrr, found.chance, found.auc) == (1, 1, 1, None)
    both = identification(x.flip(0), x, torch.tensor([0, 0, 7]))
    assert both.auc is not None
    assert set(both.columns("_test")) <= set(module.IDENTIFICATION_COLUMNS)
    assert both.clean_columns("_test") == {
        "clean_identification_rate_test": both.rate,
        "clean_identification_auc_test": both.auc,
    }
    assert set(both.clean_columns()) | set(both.clean_columns("_test")) <= set(module.IDENTIFICATION_COLUMNS)


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(2, dtype=torch.int64)])
def test_labels_that_are_none(labels: Tensor) -> None:
    x = torch.zeros(3, 1, 2, 2)
    with pytest.raises(ValueError, match="labels must be 3 whole numbers"):
        identification(x, x, labels)
