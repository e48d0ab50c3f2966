"""Temperature against Python's own powers."""

import pytest
import torch

from mipoison.defenses.temperature import Temperature, TemperatureConfig
from tests.mipoison.defenses.helpers import pictures, protect, vectors


@pytest.mark.parametrize("t", [0.2, 1.0, 3.0, 20.0])
def test_scores_are_powers(t: float) -> None:
    c = vectors(30)
    rows = [[v ** (1 / t) for v in row] for row in c.double().tolist()]
    expected = torch.tensor([[v / sum(row) for v in row] for row in rows])
    z = protect(Temperature(TemperatureConfig(temperature=t)), c, pictures(30))
    torch.testing.assert_close(z, expected, rtol=1e-6, atol=2e-7)


def test_above_one_softens_and_below_one_sharpens() -> None:
    c, x = vectors(50), pictures(50)
    soft, sharp = (
        protect(Temperature(TemperatureConfig(temperature=t)), c, x).amax(1) - c.amax(1) for t in (2.0, 0.5)
    )
    assert bool((soft < 0).all())
    assert bool((sharp > 0).all())


def test_zero_scores_stay_zero() -> None:
    c = torch.tensor([[0.9, 0.1, 0, 0], [1, 0, 0, 0], [1e-40, 1, 0, 0]])
    z = protect(Temperature(TemperatureConfig(temperature=20.0)), c, pictures(3))
    assert torch.equal(z == 0, c == 0)
