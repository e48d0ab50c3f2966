"""What the tests of a user's classifier share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipoison.victims.weights import load_state

Form = Callable[[nn.Module, Tensor], object]


class Around(nn.Module):
    """The net, with something done to what comes in or out."""

    def __init__(self, net: nn.Module, form: Form) -> None:
        super().__init__()
        self.net, self.form = net, form

    def forward(self, x_NCHW: Tensor) -> object:
        return self.form(self.net, x_NCHW)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
        self.h = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.h(self.f(x))
        return out


def pre(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def load(tmp_path: Path, held: Any, module: nn.Module | None = None, **how: Any) -> dict[str, Tensor]:
    torch.save(held, tmp_path / "w.pt", **how)
    module = Net() if module is None else module
    load_state(module, "net:make", str(tmp_path / "w.pt"))
    return dict(module.state_dict())


def one_clear_line(text: str) -> str:
    assert "\n" not in text
    assert "\x1b" not in text
    assert "weights_only" not in text
    assert "safe_globals" not in text
    assert len(text) < 700
    return text


def equal(found: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    return [*map(torch.equal, found.values(), state.values())] == [True] * len(state)
