"""Ranks with ties against scipy's."""

import numpy as np
import scipy.stats
import torch

from mipoison.linalg.ranks import mean_ranks
from mipoison.randomness import generator


def test_ranks_among_themselves_are_scipys() -> None:
    value_RM = torch.randint(5, (20, 9), generator=generator(0, "ranks")).double()
    found = mean_ranks(value_RM.sort(dim=1).values, value_RM)
    np.testing.assert_array_equal(found.numpy(), scipy.stats.rankdata(value_RM.numpy(), axis=1))


def test_values_that_are_not_among_them_lie_between() -> None:
    found = mean_ranks(torch.tensor([[1.0, 2.0, 2.0, 4.0]]), torch.tensor([[0.0, 1.5, 3.0, 9.0]]))
    assert found.tolist() == [[0.5, 1.5, 3.5, 4.5]]
