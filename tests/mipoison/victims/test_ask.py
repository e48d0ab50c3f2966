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
import scipy.stats
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.scene import SceneConfig, prepare, split_of
from mipoison.serving.protect import fit_unit, load_unit, load_victim
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from mipoison.victims.ask import Classifier, classifier_of, undone
from mipoison.victims.check import ENOUGH, PROBE, check_victim, permutation_p_value, spread
from mipoison.victims.outputs import FLOOR, log_probabilities, signs_of_probabilities

SECRET = b"sixteen bytes or more"
Form = Callable[[nn.Module, Tensor], object]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    bunch = load_digits()
    x = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None]
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:600], torch.tensor(bunch.target)[:600].long()


@pytest.fixture(scope="module")
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


class Around(nn.Module):
    """The net, with a change of its inputs or outputs."""

    def __init__(self, net: nn.Module, form: Form) -> None:
        super().__init__()
        self.net, self.form = net, form

    def forward(self, x_NCHW: Tensor) -> object:
        return self.form(self.net, x_NCHW)


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

        @undone()
        def inside() -> None:
            made.append(Classifier(Around(net, form)))

        inside()
        asked_at_once(made[0], digits[0])
        assert torch.get_default_dtype() == default
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(made[0](digits[0]), meant)  # as where it was handed over, whoever asks
    assert generators == states()


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


def test_the_callers_context_is_undone() -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        with undone():
            made = torch.ones(2, 2, requires_grad=True)
            product = made @ made
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert (product.dtype, product.device.type, product.requires_grad) == (torch.float32, "cpu", True)
    assert not product.is_inference()


# ------------------------------------------------------------------------------------ probabilities


PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda z: z.softmax(1),
    "half": lambda z: z.softmax(1).half().float(),
    "bfloat16": lambda z: z.softmax(1).bfloat16().float(),
    "three digits": lambda z: (1000 * z.softmax(1)).round() / 1000,
    "one digit": lambda z: (10 * z.softmax(1)).round() / 10,
    "clipped": lambda z: z.softmax(1).clamp(1e-3, 1 - 1e-3),
    "at temperature 30": lambda z: (z / 30).softmax(1),
    "per cent": lambda z: 100 * z.softmax(1),
    "whole per cents": lambda z: (100 * z.softmax(1)).round(),
    "sigmoid": lambda z: z.sigmoid(),
    "of 255": lambda z: (255 * z.softmax(1)).round(),
    "of 1000": lambda z: 1000 * z.softmax(1),
}
UNSTATED: dict[str, Callable[[Tensor], Tensor]] = {
    "a constant less": lambda z: z.softmax(1) - 1e-5,
    "unsure sigmoid": lambda z: (z - 8).sigmoid(),
    "a class dropped": lambda z: z.softmax(1)[:, 1:],
    "of 10": lambda z: (10 * z.softmax(1)).round(),
    "small and positive": lambda z: 0.1 + z / 500,
    "of two classes": lambda z: torch.stack([z[:, 0] / 40 + 0.5, z[:, 1] / 40 + 0.5], 1),
}
"""Recognised, too; some may be logits: to be stated."""
LOGITS: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda z: z,
    "log-softmax": lambda z: z.log_softmax(1),
    "above 0": lambda z: z.relu() + 1,
    "around 0": lambda z: z / 500,
    "around 0, centred": lambda z: (z - z.mean(1, keepdim=True)) / 500,
    "relu": lambda z: z.relu(),
    "two opposite": lambda z: torch.stack([z[:, 0], -z[:, 0]], 1),
    "around 10": lambda z: 10 + z / 10,
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_are_recognised(name: str, net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    p = PROBABILITIES[name](net(digits[0]))
    assert signs_of_probabilities(p)
    meant = p.double() / p.double().sum(1, keepdim=True)  # and stated, they are what is released
    found = torch.softmax(log_probabilities(p, "v").double(), 1)
    assert (found - meant).abs().max() < 1e-6
    assert float(found.min()) >= FLOOR / 2


@pytest.mark.parametrize("name", UNSTATED)
def test_what_may_be_probabilities_has_to_be_stated(
    name: str, net: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    z = UNSTATED[name](net(digits[0]))
    assert signs_of_probabilities(z)
    assert signs_of_probabilities(z[:20])


@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_not_taken_for_them(name: str, net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    assert signs_of_probabilities(LOGITS[name](net(digits[0]))) is None


def test_probabilities_are_refused_or_stated(
    net: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """With ``outputs='probabilities'``, results equal those of the classifier's logits; a saved unit keeps
    it."""
    x, y = digits
    soft = Around(net, lambda net, x: net(x).softmax(1).half())
    arguments = {"private": (x[:300], y[:300]), "public": x[300:], "defense": "rounding", "device": "cpu"}
    with pytest.raises(ConfigError, match=r"outputs='probabilities'.*--victim-outputs") as caught:
        fit_unit(soft, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    unit = fit_unit(soft, outputs="probabilities", **arguments)  # type: ignore[arg-type]
    unit.save(tmp_path / "unit")
    meant = fit_unit(net, **arguments).wrap(net)(x[:20])  # type: ignore[arg-type]
    for one in (unit, load_unit(tmp_path / "unit", device="cpu")):
        assert (one.wrap(soft)(x[:20]) - meant).abs().max() <= 0.011  # half precision may turn a digit
        with pytest.raises(ConfigError, match="that gives probabilities: outputs='logits' differs"):
            one.wrap(soft, outputs="logits")
    with pytest.raises(ConfigError, match="not probabilities as stated"):
        fit_unit(net, outputs="probabilities", **arguments)  # type: ignore[arg-type]
    fit_unit(soft, outputs="logits", **arguments)  # type: ignore[arg-type]


def test_records_of_stated_outputs_never_mix() -> None:
    plain = SceneConfig(victim="net:make", victim_digest="0" * 16)
    stated = dataclasses.replace(plain, victim_outputs="probabilities")
    assert "victim_outputs" not in plain.flat()  # so that identities made before the option stay
    assert plain.victim_name == f"net:make@{'0' * 16}"
    assert stated.victim_name == f"net:make@{'0' * 16}:probabilities"
    assert SceneConfig.from_flat(stated.flat()) == stated
    assert SceneConfig.from_flat(plain.flat("scene"), "scene") == plain
    with pytest.raises(ConfigError, match="one of logits, probabilities"):
        dataclasses.replace(plain, victim_outputs="scores")
    with pytest.raises(ConfigError, match="no own victim"):
        SceneConfig(victim_outputs="logits")


# ------------------------------------------------------------------------------------ recognition


@pytest.mark.parametrize("right", [60, 70, 75, 80])
def test_the_chance_is_hypergeometric(right: int) -> None:
    """Two classes of 64, 64 answers of each: right answers to the first follow the hypergeometric law."""
    y, told = torch.arange(128) % 2, torch.arange(128) % 2
    wrong = (128 - right) // 2
    for k in (0, 1):
        told[torch.nonzero(y == k).flatten()[:wrong]] = 1 - k
    exact = float(scipy.stats.hypergeom.sf((told == y).sum().item() // 2 - 1, 128, 64, 64))
    assert permutation_p_value(told, y) == pytest.approx(exact, abs=4 * (exact / 9999) ** 0.5 + 2e-4)


HONEST = [([900, 10], 0.9), ([990, 5], 0.7), ([1000, 3], 0.85), ([3] * 10, 0.3), ([2] * 10, 0.4)]


class Told(nn.Module):
    """Answers with the label that is written into the image."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        k = int(x_NCHW.shape[1])
        return 4 * x_NCHW[:, :, 0, 0] - 0.1 * torch.arange(k)


def written(told: Tensor, k: int) -> Tensor:
    return nn.functional.one_hot(told, k).float()[:, :, None, None]


@pytest.mark.parametrize(("counts", "share"), HONEST, ids=str)
def test_weak_and_uneven_classifiers_pass(counts: list[int], share: float) -> None:
    """Each class recognised alike, the others mistaken for other classes in turn."""
    k = len(counts)
    y = torch.repeat_interleave(torch.arange(k), torch.tensor(counts))
    rank = torch.cat([torch.arange(n) for n in counts])
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(3))
    told = torch.where(rank < share * torch.tensor(counts)[y] - 0.01, y, (y + 1 + rank % (k - 1)) % k)
    check_victim(Classifier(Told()), written(told[order], k), y[order], k)


def untrained(y: Tensor, k: int, seed: int) -> Tensor:
    """One class is preferred, whatever the image."""
    drawn = torch.rand(len(y), k, generator=torch.Generator().manual_seed(seed)) + torch.linspace(0, 0.5, k)
    return drawn.argmax(1)


@pytest.mark.parametrize("counts", [[300, 300], [30] * 10, [900, 150], [1000, 3]], ids=str)
def test_answers_without_regard_to_the_image_do_not(counts: list[int]) -> None:
    k = len(counts)
    y = torch.repeat_interleave(torch.arange(k), torch.tensor(counts))
    several = [torch.full_like(y, 0), torch.full_like(y, k - 1), (y + 1) % k]
    if sum(counts) - max(counts) >= ENOUGH:
        several += [untrained(y, k, seed) for seed in range(3)]
    for told in several:
        with pytest.raises(ConfigError, match=r"no better than chance.*error 0\.001"):
            check_victim(Classifier(Told()), written(told, k), y, k)


def test_few_images_that_do_not_decide_are_said(caplog: pytest.LogCaptureFixture) -> None:
    y = torch.arange(6) % 3
    told = torch.tensor([0, 1, 2, 0, 2, 1])
    check_victim(Classifier(Told()), written(told, 3), y, 3)
    assert "do not decide" in caplog.text


def test_the_sample_is_spread_over_the_classes() -> None:
    sorted_labels = torch.arange(10).repeat_interleave(100)
    assert torch.bincount(sorted_labels[spread(sorted_labels, PROBE)]).tolist() == [26] * 6 + [25] * 4
    assert len(spread(torch.arange(40).repeat(2), PROBE)) == 80
    rare = torch.tensor([0] * 1000 + [1] * 3)
    assert torch.bincount(rare[spread(rare, PROBE)]).tolist() == [PROBE - 3, 3]


def test_weak_classifiers_pass_and_constant_ones_do_not(digits: tuple[Tensor, Tensor]) -> None:
    x = torch.rand(5000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.arange(5000) % 2
    x[:, 0, 0, 0] = torch.where(torch.arange(5000) % 9 < 5, y, 1 - y).float()  # right in five of nine

    class Weak(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([1 - x[:, 0, 0, 0], x[:, 0, 0, 0]], 1) * 4 - 1

    check_victim(Classifier(Weak()), x, y, 2)
    constant = Around(nn.Identity(), lambda _, x: torch.zeros(len(x), 10) + torch.arange(10))
    with pytest.raises(ConfigError, match=r"no better than chance.*class 9, was given to"):
        check_victim(Classifier(constant), *digits, 10)
    with pytest.raises(ConfigError, match="Classes without an image: 4"):
        check_victim(Classifier(constant), digits[0][digits[1] != 4], digits[1][digits[1] != 4], 10)
    with pytest.raises(ConfigError, match="answers all of 256 private images alike"):
        check_victim(Classifier(constant), digits[0], None, 10)
    with pytest.raises(ConfigError, match="cannot be judged by one class"):
        check_victim(Classifier(constant), digits[0], torch.zeros(600).long(), 10)


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
