"""AdvEXA's label modifier."""

from __future__ import annotations

import pytest
import torch

from mipoison.defenses.advexa import restore_label


def test_the_label_modifier_exchanges_two_scores() -> None:
    z = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    assert restore_label(z, torch.tensor([2, 0])).tolist() == [
        pytest.approx([0.2, 0.3, 0.5]),
        pytest.approx([0.6, 0.3, 0.1]),
    ]
