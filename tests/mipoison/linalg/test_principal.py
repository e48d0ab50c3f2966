"""Principal components against NumPy's singular value decomposition, of many rows and of few."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.linalg.principal import PrincipalComponents
from mipoison.randomness import generator

SHAPES = [(40, 12), (12, 40), (20, 20)]


def rows(n: int, d: int, rank: int | None = None) -> Tensor:
    x_ND = torch.randn(n, d, generator=generator(0, "principal"), dtype=torch.float64)
    if rank is not None:
        x_ND = x_ND[:, :rank] @ torch.randn(rank, d, generator=generator(1, "principal"), dtype=torch.float64)
    return x_ND


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_they_are_a_singular_value_decomposition(n: int, d: int) -> None:
    x, parts = rows(n, d), PrincipalComponents(rows(n, d))
    left, size, right = np.linalg.svd(x.numpy(), full_matrices=False)
    np.testing.assert_allclose(parts.square_R.sqrt().numpy(), size[::-1], rtol=1e-9)
    np.testing.assert_allclose(np.abs(right[::-1] @ parts.directions().numpy()), np.eye(min(n, d)), atol=1e-8)
    np.testing.assert_allclose(np.abs(left[:, ::-1].T @ parts.scores().numpy()), np.eye(min(n, d)), atol=1e-8)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_the_leading_ones_are_those_that_vary(n: int, d: int) -> None:
    x = rows(n, d, rank=4)
    parts = PrincipalComponents(x)
    last = len(parts.square_R)
    assert parts.leading(9, 1e-9).tolist() == list(range(last - 4, last))
    assert parts.leading(2, 1e-9).tolist() == [last - 2, last - 1]
    chosen = parts.leading(9, 1e-9)
    found = parts.scores(chosen) * parts.square_R[chosen].sqrt() @ parts.directions(chosen).mT
    torch.testing.assert_close(found, x)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_largest_first_is_the_other_order(n: int, d: int) -> None:
    parts = PrincipalComponents(rows(n, d))
    for divisor in ("singular value", "length"):
        found = parts.directions(slice(-5, None), largest_first=True, divisor=divisor)  # type: ignore[arg-type]
        torch.testing.assert_close(found, parts.directions(slice(-5, None)).flip(1))


def test_combinations_of_no_length_are_left_out() -> None:
    found = PrincipalComponents(rows(8, 30, rank=3)).directions(slice(-6, None), divisor="length")
    assert found.shape == (30, 3)
    torch.testing.assert_close(found.mT @ found, torch.eye(3, dtype=torch.float64))
    nothing = PrincipalComponents(torch.zeros(3, 8, dtype=torch.float64))
    assert nothing.leading(5, 1e-9).shape == (0,)
    assert nothing.directions(divisor="length").shape == (8, 0)
