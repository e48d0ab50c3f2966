"""What a defense may state of its releases, and what is refused."""

import math

import pytest
import torch
from torch import Tensor

from mipoison.certificates.observation import Gaussian, Observation
from mipoison.certificates.pool import cells_of


def first(rows_ND: Tensor, y_NM: Tensor) -> Tensor:
    return y_NM


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_noise_needs_a_law(sigma: float) -> None:
    with pytest.raises(ValueError, match=rf"sigma = {sigma}: must be above 0 and finite"):
        Gaussian(torch.zeros(3, 2), sigma, first)


@pytest.mark.parametrize("means", [torch.zeros(3), torch.tensor([[0.0, math.nan]])])
def test_means_are_a_finite_matrix(means: Tensor) -> None:
    with pytest.raises(ValueError, match=r"means must be finite, of shape \(N, M\)"):
        Gaussian(means, 0.1, first)


def test_rows_are_a_matrix_with_one_mean_each() -> None:
    with pytest.raises(ValueError, match=r"shape \(N, D\), got \(3,\)"):
        Observation(torch.zeros(3))
    with pytest.raises(ValueError, match="2 means for 3 discrete rows"):
        Observation(torch.zeros(3, 1), Gaussian(torch.zeros(2, 2), 0.1, first))


def test_a_part_is_observed_as_in_the_whole() -> None:
    rows, means = torch.tensor([[1.0], [2.0], [1.0], [3.0]]), torch.arange(8.0).reshape(4, 2)
    index = torch.tensor([3, 0, 2])
    part = Observation(rows, Gaussian(means, 0.1, first)).part(index)
    assert len(part) == 3
    assert part.rows_ND.tolist() == [[3.0], [1.0], [1.0]]
    assert part.gaussian is not None
    assert part.gaussian.means_NM.tolist() == [[6.0, 7.0], [0.0, 1.0], [4.0, 5.0]]
    cells = cells_of(part.rows_ND).tolist()
    assert cells[1] == cells[2]
    assert cells[0] != cells[1]
    assert Observation(rows).part(index).gaussian is None
