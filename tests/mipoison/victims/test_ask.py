"""Calling a user's classifier changes neither it nor the process, and unsuitable classifiers are refused."""

from __future__ import annotations

import copy
import dataclasses
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.process import own_context
from mipoison.scene import SceneConfig, prepare, split_of
from mipoison.serving.protect import load_victim
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from mipoison.victims.ask import Classifier, classifier_of
from mipoison.victims.check import check_victim
from tests.mipoison.victims.helpers import Around, Form

SECRET = b"sixteen bytes or more"


_buffer, _kept = torch.zeros(600, 10), list[Tensor]()


def in_place(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.sub_(0.5).div_(0.5).mul(0.5).add(0.5))


def one_buffer(net: nn.Module, x: Tensor) -> Tensor:
    _buffer[: len(x)] = net(x)
    return _buffer[: len(x)]


def keeps_and_erases(net: nn.Module, x: Tensor) -> Tensor:
    for earlier in _kept:
        earlier.zero_()
    _kept.append(x)
    return net(x)


def under_autocast(net: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net(x)


def sets_everything(net: nn.Module, x: Tensor) -> Tensor:
    z = net(x)
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_grad_enabled(True)
    torch.set_autocast_enabled("cpu", True)
    return z


def neighbours(net: nn.Module, x: Tensor) -> Tensor:
    z = net(x)
    z[2:] += 0.5 * z[1:-1].clone()
    return z


ALIKE: dict[str, tuple[Form, float]] = {
    "tuple": (lambda net, x: (net(x), None), 0),
    "list after features": (lambda net, x: [net[:2](x), net(x)], 0),  # type: ignore[index]
    "dictionary": (lambda net, x: {"features": x, "logits": net(x)}, 0),
    "out": (lambda net, x: {"out": net(x)}, 0),
    "object": (lambda net, x: SimpleNamespace(logits=net(x)), 0),
    "float64": (lambda net, x: net(x).double(), 0),
    "float16": (lambda net, x: net(x).half(), 1e-2),
    "bfloat16": (lambda net, x: net(x).bfloat16(), 5e-2),
    "autocast inside": (under_autocast, 5e-2),
    "log-softmax": (lambda net, x: net(x).log_softmax(1), 1e-5),
    "in place": (in_place, 1e-5),
    "one buffer": (one_buffer, 0),
    "keeps and erases": (keeps_and_erases, 0),
    "the process's settings": (sets_everything, 0),
    "inference mode": (lambda net, x: torch.inference_mode()(net.forward)(x), 0),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_changes_nothing(name: str, net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    """The same confidences as the net's own; images, labels and the process's settings as before."""
    form, tolerance = ALIKE[name]
    x, y = digits[0][:300].clone(), digits[1][:300].clone()
    meant, random = torch.softmax(net(x), 1), torch.get_rng_state()
    settings = torch.get_default_dtype(), torch.get_num_threads(), torch.is_autocast_enabled("cpu")
    asked = Classifier(Around(net, form), n_classes=10)
    check_victim(asked, x, y, 10)
    first, second = asked(x[:50]), asked(x[50:])
    assert first.dtype == torch.float32
    assert not first.requires_grad
    assert (torch.softmax(torch.cat([first, second]), 1) - meant).abs().max() <= max(tolerance, 1e-6)
    assert torch.equal(x, digits[0][:300])
    assert torch.equal(y, digits[1][:300])
    assert torch.equal(torch.get_rng_state(), random)
    assert settings == (torch.get_default_dtype(), torch.get_num_threads(), torch.is_autocast_enabled("cpu"))


REFUSED: dict[str, tuple[Form, str]] = {
    "unknown key": (lambda net, x: {"z": net(x)}, r"'z'.*model\(x\)\[KEY\]"),
    "two widths": (lambda net, x: (net(x), net(x)[:, :5], x), "cannot be told"),
    "object": (lambda net, x: SimpleNamespace(scores=net(x)), r"return model\(x\)\.logits"),
    "labels": (lambda net, x: net(x).argmax(1), "look like labels"),
    "one score": (lambda net, x: net(x)[:, :1], "torch.stack"),
    "a picture of scores": (lambda net, x: net(x)[:, :, None, None], r"z\.flatten\(1\)"),
    "nothing": (lambda net, x: None, "NoneType"),
    "overflow": (lambda net, x: (net(x) * 1e5).half(), "not finite"),
    "overflow of ours": (lambda net, x: net(x).double() * 1e200, "not finite in float32"),
    "random": (lambda net, x: net(x) + torch.randn(len(x), 10), "differently when asked again"),
    "numpy's": (lambda net, x: net(x) * (1 + float(np.random.rand())), "differently when asked again"),  # noqa: NPY002
    "Python's": (lambda net, x: net(x) * (1 + random.random()), "differently when asked again"),
    "the batch's mean": (lambda net, x: net(x - x.mean()), "among others"),
    "a neighbour": (neighbours, "among others"),
    "own training mode": (lambda net, x: net.train()(x), "among others"),
    "no running statistics": (
        lambda net, x: nn.functional.batch_norm(net(x), None, None, training=True),
        "among others",
    ),
    "sparse": (lambda net, x: net(x).to_sparse(), r"z\.to_dense\(\)"),
    "size": (lambda net, x: net(x[:, :, :8]), r"interpolate\(x, 224\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_with_a_remedy(name: str, net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    form, said = REFUSED[name]
    with pytest.raises(ConfigError, match=said) as caught:
        check_victim(Classifier(Around(copy.deepcopy(net), form)), *digits, 10)
    assert "\n" not in str(caught.value)


def test_a_module_keeps_mode_weights_and_place(net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    trained = copy.deepcopy(net).train()
    trained[4].eval()  # type: ignore[index]
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    meant = net(digits[0])
    assert torch.equal(Classifier(trained)(digits[0]), meant)
    assert [m.training for m in trained] == [True] * 4 + [False, True]  # type: ignore[union-attr]
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def asked_at_once(asked: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """The answers of four threads that ask 20 times each."""
    found: list[Tensor] = []

    def ask() -> None:
        for _ in range(20):
            found.append(asked(x))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    return found


@pytest.mark.parametrize("copied", [True, False])
def test_four_threads_ask_a_module_in_training_mode(
    copied: bool, net: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    class Uncopied(nn.Sequential):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("no copies")

    trained = copy.deepcopy(net).train()
    module = trained if copied else Uncopied(trained).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    meant = net(digits[0])
    assert all(torch.equal(z, meant) for z in asked_at_once(Classifier(module), digits[0]))
    assert all(m.training for m in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_dtype(dtype: torch.dtype, net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    asked = Classifier(copy.deepcopy(net).to(dtype))
    z = asked(digits[0])
    assert z.dtype == torch.float32
    assert (torch.softmax(z, 1) - torch.softmax(net(digits[0]), 1)).abs().max() < 0.05
    check_victim(asked, *digits, 10)


def test_what_is_no_classifier(net: nn.Module) -> None:
    for wrong, said in ((nn.Linear, "instance"), ("net:make", "load_victim"), (net.forward, "def forward")):
        with pytest.raises(ConfigError, match=said):
            classifier_of(wrong)
    with pytest.raises(ConfigError, match="did you mean 'logits'"):
        classifier_of(net, outputs="logit")


# ------------------------------------------------------------------------------------ whole scenes


class Clamped(nn.Module):
    """Changes its images in place, and gives what autocast gives."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linear = nn.Linear(256, 10)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.linear(x_NCHW.clamp_(0.25, 0.75).flatten(1)).bfloat16()


def clamped() -> nn.Module:
    """A classifier that recognises digits: its weights are the mean images of the classes."""
    made, bunch = Clamped(), load_digits()
    x = torch.tensor(bunch.images / 16, dtype=torch.float32).repeat_interleave(2, 1).repeat_interleave(2, 2)
    x = x.clamp(0.25, 0.75).flatten(1)
    means = torch.stack([x[torch.tensor(bunch.target) == k].mean(0) for k in range(10)])
    with torch.no_grad():
        made.linear.weight.copy_(means)
        made.linear.bias.copy_(-means.square().sum(1) / 2)
    return made


def test_a_scenes_ground_truth_is_left_alone(tiny_config: SceneConfig, tmp_path: Path) -> None:
    """Prepared under inference mode, by a classifier that works in place."""
    source = f"{__name__}:clamped"
    sys.modules.setdefault(__name__, sys.modules[clamped.__module__])
    digest = load_victim(source).digest
    config = dataclasses.replace(tiny_config, victim=source, victim_digest=digest, victim_steps=5)
    with torch.inference_mode():
        scene = prepare(config, ArtifactStore(Storage(tmp_path)), device=torch.device("cpu"))
    clean = split_of(config)
    for part in ("private_train", "private_test", "attack_train", "attack_test"):
        assert torch.equal(getattr(scene.split, part).x_NCHW, getattr(clean, part).x_NCHW)
    assert scene.clean["private_test"].dtype == torch.float32


@pytest.mark.parametrize(("bounds", "said"), [((1, 64), "batches of 1 to 64"), (None, "batches of 8 alone")])
def test_exports_for_some_batches_are_refused(
    bounds: tuple[int, int] | None, said: str, net: nn.Module, tmp_path: Path
) -> None:
    shapes = None if bounds is None else ({0: torch.export.Dim("n", min=bounds[0], max=bounds[1])},)
    program = torch.export.export(net, (torch.rand(8, 1, 16, 16),), dynamic_shapes=shapes)
    torch.export.save(program, str(tmp_path / "net.pt2"))
    with pytest.raises(ConfigError, match=f"{said}.*dynamic"):
        load_victim(str(tmp_path / "net.pt2"))
    with pytest.raises(ConfigError, match=r"fails on images.*with a dynamic one: torch\.export"):
        Classifier(program.module())(torch.rand(100, 1, 16, 16))


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_four_threads_and_the_settings_of_the_process(
    default: torch.dtype, net: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    """The module computes in the default dtype of the program that made it, and leaves others behind."""

    def form(net: nn.Module, x: Tensor) -> Tensor:
        assert torch.get_default_dtype() == default
        z = net(x) + torch.zeros(10)
        torch.set_default_dtype(torch.float16)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        torch.manual_seed(1)
        return z.to(torch.zeros(1, dtype=default).dtype)

    def states() -> list[object]:
        numpys = np.random.get_state()[1].tolist()  # noqa: NPY002  the global one is what is meant
        return [random.getstate(), numpys, torch.get_rng_state().tolist()]

    generators = states()
    meant = net(digits[0])
    torch.set_default_dtype(default)
    try:
        made: list[Classifier] = []

        @own_context()
        def inside() -> None:
            made.append(Classifier(Around(net, form)))

        inside()
        asked_at_once(made[0], digits[0])
        assert torch.get_default_dtype() == default
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(made[0](digits[0]), meant)  # as where it was handed over, whoever asks
    assert generators == states()
