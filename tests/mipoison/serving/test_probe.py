"""A unit asks the classifier that it is to wrap what it was fitted for, beyond the digest of its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.serving.probe import IMAGES, Probe, synthetic_images
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


def test_a_unit_holds_no_image_that_was_given(tmp_path: Path) -> None:
    """Synthetic images, of 8 bits, the same whatever was given; the answers are the classifier's."""
    kept = []
    for public in (images(2), (images(3) * 255).round() / 255):
        unit = fitted(Net(), public)
        unit.save(tmp_path, overwrite=True)
        assert load_file(tmp_path / TENSORS)["probe.x"].dtype == torch.uint8
        probe = load_unit(tmp_path, device="cpu").probe
        assert probe is not None
        assert probe.x_NCHW.shape == (IMAGES, 1, 4, 4)
        given = torch.cat([public, images()])
        apart_NM = (probe.x_NCHW[:, None] - given[None]).flatten(2).abs().amax(2)
        assert float(apart_NM.min()) > 1 / 255
        assert torch.allclose(probe.c_NK.float(), Net()(probe.x_NCHW).softmax(1), atol=1e-6)
        kept.append(probe.x_NCHW)
    assert torch.equal(*kept)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 9), (3, 64, 64)])
def test_synthetic_images_differ_and_are_the_same_each_time(shape: tuple[int, int, int]) -> None:
    x = synthetic_images(shape, 24)
    assert x.shape == (24, *shape)
    assert x.equal(synthetic_images(shape, 24))
    assert len(x.unique(dim=0)) > 16
    assert 0 <= float(x.min()) < 0.2 < 0.8 < float(x.max()) <= 1


def test_a_unit_of_an_earlier_version_is_checked_with_its_public_images(tmp_path: Path) -> None:
    """Those are float32 where they were not of 8 bits."""
    x = images(2)[:IMAGES]
    own = Probe(x, Net()(x).detach().double().softmax(1), 1e-4)
    Unit(**(vars(fitted(Net())) | {"probe": own})).save(tmp_path)
    loaded = load_unit(tmp_path, device="cpu")
    assert loaded.probe is not None
    assert loaded.probe.x_NCHW.equal(x)
    loaded.wrap(Net())
    with pytest.raises(ConfigError, match="other answers to the unit's probe images"):
        loaded.wrap(Net(1.01))


def test_a_unit_prints_as_one_line() -> None:
    unit = fitted(Net())
    assert repr(unit).startswith("Unit(RoundingConfig(")
    assert "images 1x4x4, 5 classes" in repr(unit)
    assert "\n" not in repr(unit) + repr(unit.probe)
    assert len(repr(unit)) < 200


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
