"""Label only: one-hot, of the first maximum."""

import torch

from mipoison.defenses.label_only import LabelOnly
from tests.mipoison.defenses.helpers import pictures, protect


def test_label_only_is_one_hot_of_the_first_maximum() -> None:
    c = torch.tensor([[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]])
    assert protect(LabelOnly(), c, pictures(2)).tolist() == [[1, 0, 0], [0, 0, 1]]
