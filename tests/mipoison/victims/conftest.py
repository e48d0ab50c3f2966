"""A trained classifier of the digits, and images that it was not trained on."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tests.mipoison.victims.helpers import Net


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    bunch = load_digits()
    x = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None]
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:600], torch.tensor(bunch.target)[:600].long()


@pytest.fixture(scope="session")
def net(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """A classifier that knows the ten digits, with a layer that training mode changes."""
    x, y = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10)
        )
    optimiser = torch.optim.Adam(made.parameters(), 2e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(made(x), y).backward()
        optimiser.step()
    return made.eval().requires_grad_(False)


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    net = Net()
    net.f(torch.randn(8, 6))  # running statistics that are not the initial ones
    return {name: value.clone() for name, value in net.state_dict().items()}
