"""A unit asks the classifier that it is to wrap what it was fitted for, beyond the digest of its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.serving.probe import IMAGES, Probe
from mipoison.serving.protect import fit_unit
from mipoison.serving.unit import TENSORS, Unit, load_unit

SOFTMAX = torch.nn.Softmax(1)


class Net(nn.Module):
    """Its temperature is a plain attribute: no part of the weights' digest."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.temperature = nn.Linear(16, 5), temperature

    def forward(self, x: Tensor) -> Tensor:
        return 4 * self.head(x.flatten(1)) / self.temperature


class Closure(nn.Module):
    """It has no weights that a digest could see."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.ask = lambda x: net(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(x)


def other_bias() -> Net:
    net = Net()
    net.head.bias.data[3] += 0.1
    return net


def hooked(hook: Callable[[Tensor], Tensor]) -> Net:
    net = Net()
    net.register_forward_hook(lambda module, x, z: hook(z))
    return net


def images(seed: int = 1) -> Tensor:
    return torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def fitted(model: nn.Module, public: Tensor | None = None, outputs: str | None = None) -> Unit:
    x = images()
    return fit_unit(
        model, private=x, public=images(2) if public is None else public, defense="rounding",
        outputs=outputs, device="cpu",
    )  # fmt: skip


@pytest.fixture(params=[False, True], ids=["fitted", "loaded"])
def through(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Unit], Unit]:
    def passed(unit: Unit) -> Unit:
        if not request.param:
            return unit
        unit.save(tmp_path / "unit")
        return load_unit(tmp_path / "unit", device="cpu")

    return passed


@pytest.mark.parametrize(
    ("meant", "other"),
    [
        (Net, lambda: Net(8)),
        (Net, lambda: Net(1.01)),
        (Net, lambda: hooked(lambda z: z.flip(1))),
        (lambda: Closure(Net()), lambda: Closure(other_bias())),
    ],
    ids=["temperature", "slightly", "hook", "closure"],
)
def test_other_answers_of_the_same_digest_are_refused(
    meant: Callable[[], nn.Module], other: Callable[[], nn.Module], through: Callable[[Unit], Unit]
) -> None:
    unit = through(fitted(meant()))
    unit.wrap(meant())
    with pytest.raises(ConfigError, match=r"other answers to the unit's probe images \(confidences differ"):
        unit.wrap(other())
    unit.wrap(other(), any_model=True)


def test_another_bias_is_refused(through: Callable[[Unit], Unit]) -> None:
    with pytest.raises(ConfigError, match="fitted for another classifier"):
        through(fitted(Net())).wrap(other_bias())


def test_probabilities_in_place_of_logits_are_refused(through: Callable[[Unit], Unit]) -> None:
    unit = through(fitted(Net()))
    for any_model in (False, True):
        with pytest.raises(ConfigError, match=r"returns probabilities .*outputs='probabilities'"):
            unit.wrap(hooked(SOFTMAX), any_model=any_model)
    released = unit.wrap(hooked(SOFTMAX), any_model=True, outputs="probabilities")(images())
    assert torch.allclose(released, unit.wrap(Net())(images()), atol=1e-5)
    with pytest.raises(ConfigError, match="other answers to the unit's probe images"):
        unit.wrap(hooked(SOFTMAX), outputs="logits")


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_stated_at_fitting_is_stated(outputs: str, through: Callable[[Unit], Unit]) -> None:
    unit = through(fitted(hooked(SOFTMAX), outputs=outputs))
    unit.wrap(hooked(SOFTMAX))
    with pytest.raises(ConfigError):
        unit.wrap(Net())


def test_what_is_kept(tmp_path: Path) -> None:
    """Images as given, of 8 bits in 8 bits; the answers are the classifier's."""
    for public, kept in ((images(2), torch.float32), ((images(2) * 255).round() / 255, torch.uint8)):
        unit = fitted(Net(), public)
        unit.save(tmp_path, overwrite=True)
        assert load_file(tmp_path / TENSORS)["probe.x"].dtype == kept
        probe = load_unit(tmp_path, device="cpu").probe
        assert probe is not None
        assert probe.x_NCHW.shape == (IMAGES, 1, 4, 4)
        assert all(any(x.equal(given) for given in public) for x in probe.x_NCHW)
        assert torch.allclose(probe.c_NK.float(), Net()(probe.x_NCHW).softmax(1), atol=1e-6)


def test_units_without_a_probe_still_load(tmp_path: Path) -> None:
    unit = fitted(Net())
    Unit(**(vars(unit) | {"probe": None})).save(tmp_path)
    loaded = load_unit(tmp_path, device="cpu")
    assert loaded.probe is None
    loaded.wrap(Net())


def test_parts_of_a_probe_are_refused() -> None:
    probe = fitted(Net()).probe
    assert probe is not None
    state = probe.state()
    with pytest.raises(KeyError):
        Probe.from_state({"probe.x": state["probe.x"]})
    with pytest.raises(ValueError, match="probe images"):
        Probe.from_state(state | {"probe.c": state["probe.c"][:3]})
