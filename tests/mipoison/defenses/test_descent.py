"""The descent of Algorithm 1: directions of length one. LPA's search ``descent`` tests its rounds."""

import torch

from mipoison.defenses.descent import unit_rows


def test_unit_rows() -> None:
    rows = torch.tensor(
        [[3.0, 4.0], [0.0, 0.0], [1e30, 0.0], [1e-30, 1e-30], [float("nan"), 1.0], [float("inf"), 1.0]]
    )
    unit = unit_rows(rows)
    expected = [[0.6, 0.8], [0, 0], [1, 0], [0.5**0.5, 0.5**0.5], [0, 1], [1, 0]]
    torch.testing.assert_close(unit, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
