"""A protected classifier among other modules: it loads no weights, and nobody records its answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from mipoison.config import ConfigError
from mipoison.serving.protect import fit_unit
from mipoison.serving.wrap import ProtectedClassifier

SECRET = b"sixteen bytes or more"


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def protected(images: Tensor) -> ProtectedClassifier:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    unit = fit_unit(model, private=images, public=images, defense="tail-noise", device="cpu")
    return unit.wrap(model, secret=SECRET)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("how", [{}, {"strict": False}, {"assign": True}])
def test_it_loads_no_weights(protected: ProtectedClassifier, inside: bool, how: dict[str, bool]) -> None:
    """They would go into the user's own module."""
    module = nn.Sequential(nn.Identity(), protected) if inside else protected
    before = copy.deepcopy(protected.model.state_dict())
    other = {name: value + 1 for name, value in module.state_dict().items()}
    with pytest.raises(ConfigError, match=r"loads no weights.*into the classifier itself, then fit a unit"):
        module.load_state_dict(other, **how)
    assert all(value.equal(before[name]) for name, value in protected.model.state_dict().items())


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    "record",
    [
        lambda module, x: torch.jit.trace(module, x),
        lambda module, x: torch.jit.script(module),
        lambda module, x: torch.fx.symbolic_trace(module),
        lambda module, x: make_fx(module)(x),
        lambda module, x: torch.export.export(module, (x,), strict=False),
    ],
    ids=["trace", "script", "symbolic", "make_fx", "export"],
)
def test_its_answers_are_not_recorded(
    protected: ProtectedClassifier, images: Tensor, record: Callable[[nn.Module, Tensor], Any], inside: bool
) -> None:
    """The noise of the images that it is recorded with would be every image's."""
    meant = protected(images)
    module = nn.Sequential(nn.Identity(), protected) if inside else protected
    with pytest.raises(ConfigError, match=r"cannot be traced, scripted or exported: .*unit\.save"):
        record(module, images[:3].clone())
    assert protected(images).equal(meant)
