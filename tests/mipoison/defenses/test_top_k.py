"""Top-k against a sorted list."""

import pytest
import torch

from mipoison.defenses.top_k import TopK, TopKConfig
from tests.mipoison.defenses.helpers import pictures, protect, vectors


@pytest.mark.parametrize("n_classes", [2, 3, 5, 12])
@pytest.mark.parametrize("k", [1, 2, 4, 20])
def test_the_k_largest_stay_and_the_others_share(k: int, n_classes: int) -> None:
    c = vectors(40, n_classes)
    z = protect(TopK(TopKConfig(k=k)), c, pictures(40))
    for row, out in zip(c.double().tolist(), z.double().tolist(), strict=True):
        order = sorted(range(n_classes), key=lambda j: (-row[j], j))
        rest = order[k:]
        for j in order[:k]:
            assert out[j] == row[j]
        for j in rest:
            assert out[j] == pytest.approx(sum(row[i] for i in rest) / len(rest), rel=1e-6)


def test_ties_keep_the_lower_index_and_the_label() -> None:
    c = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.4, 0.1]])
    z = protect(TopK(TopKConfig(k=1)), c, pictures(2))
    torch.testing.assert_close(z, torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.2, 0.4, 0.2, 0.2]]))
    assert z.argmax(1).tolist() == [0, 1]


def test_all_but_one_is_everything() -> None:
    c = vectors(20, 5)
    assert torch.equal(protect(TopK(TopKConfig(k=4)), c, pictures(20)), c)
