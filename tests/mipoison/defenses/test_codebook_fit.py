"""The fit of a codebook against enumeration, closed forms and other solvers."""

import itertools
import subprocess
import sys

import pytest
import scipy.optimize
import torch
from torch import Tensor

from mipoison.defenses import codebook_fit
from mipoison.defenses.codebook_fit import codewords, fitted_cells, leading_directions, median
from mipoison.randomness import generator
from mipoison.simplex import label_of
from tests.mipoison.defenses.test_contract import vectors


def test_the_median_is_what_a_general_solver_finds() -> None:
    c = vectors(60).double()
    found = scipy.optimize.minimize(
        lambda m: float((c - torch.from_numpy(m)).norm(dim=1).mean()), c.mean(0).numpy(), tol=1e-12
    )
    assert float((c - median(c)).norm(dim=1).mean()) <= found.fun + 1e-8


@pytest.mark.parametrize("shape", [(200, 30), (30, 200)])
def test_directions_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    away = torch.randn(*shape, generator=generator(0, "svd"), dtype=torch.float64)
    axes = leading_directions(away, 6)
    expected = torch.linalg.svd(away, full_matrices=False).Vh[:6].T
    torch.testing.assert_close(
        (axes.T @ expected).abs(), torch.eye(6, dtype=torch.float64), atol=1e-8, rtol=0
    )


def test_a_label_without_vectors_has_its_one_hot_codeword() -> None:
    c = vectors(200).double()
    some = c[label_of(c) != 2]
    book = codewords(some, label_of(some))
    assert bool((book[2] == torch.eye(5, dtype=torch.float64)[2]).all())
    assert bool((book.argmax(2) == torch.arange(5)[:, None]).all())


@pytest.mark.parametrize("rate", [0.05, 0.3, 2.0])
def test_no_choice_among_the_codewords_beats_the_dual_and_the_fitted_one_comes_near(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine images, two codewords: all 512 choices, by enumeration."""
    monkeypatch.setattr(codebook_fit, "PRIOR", 0.0)
    monkeypatch.setattr(codebook_fit, "TEMPERATURES", (0.1, 0.01, 0.001, 0.0002))
    n = 9
    look = torch.randn(n, 2, generator=generator(1, "look"), dtype=torch.float64)
    look = look - look.mean(0)
    distance = torch.rand(n, 2, generator=generator(1, "distance"), dtype=torch.float64)
    variance = float(look.square().sum(1).mean())
    cell = torch.arange(2).expand(n, 2)

    def price(choice: Tensor) -> float:
        told = 0.0
        for z in range(2):
            mine = choice == z
            if bool(mine.any()):
                told += float(look[mine].mean(0).square().sum()) * float(mine.double().mean())
        moved = float(distance.gather(1, choice[:, None]).mean())
        return moved + rate * told / variance

    best = min(price(torch.tensor(choice)) for choice in itertools.product((0, 1), repeat=n))
    cells = fitted_cells(cell, distance, look, 2, rate=rate, variance=variance, crowding=0.0)
    cost = distance + cells.offset_M + look @ cells.tilt_MR.T
    dual = float(cost.amin(1).mean())
    assert dual <= best + 1e-9
    # A randomised choice closes the gap: at most as many images as there are equations are undecided.
    assert best - dual < 0.25 * best
    assert price(cost.argmin(1)) <= price(distance.argmin(1)) + 1e-9


def test_of_two_cells_that_tell_nothing_the_distance_decides() -> None:
    distance = torch.tensor([[0.1, 0.2], [0.3, 0.1]], dtype=torch.float64)
    look = torch.zeros(2, 1, dtype=torch.float64)
    cells = fitted_cells(
        torch.arange(2).expand(2, 2), distance, look, 2, rate=1.0, variance=1.0, crowding=0.0
    )
    assert cells.size_M.tolist() == [1, 1]
    assert float(cells.tilt_MR.abs().max()) == 0


def test_a_fit_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from mipoison.defenses.codebook_fit import _ascend\n"
        "cell, mean = torch.tensor([[0, 1]] * 4), torch.ones(2, 1)\n"
        "w = _ascend(mean, cell, torch.zeros(4, 2), torch.ones(4, 1), 1.0, 1.0)\n"
        "assert torch.isfinite(w).all()\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["False"]
