"""Classifiers: the architectures of the paper, at every image size, and their confidence vectors."""

import pytest
import torch
from torch import nn

from mipoison.config import ConfigError
from mipoison.models.classifier import ClassifierConfig, EvaluatorNet, blocks_for, confidence_vectors
from mipoison.models.inversion import InversionConfig
from mipoison.randomness import generator
from mipoison.training import MOST_AVERAGED, seeded
from tests.mipoison.models.helpers import SHAPES, kinds

CPU = torch.device("cpu")


def widths(model: nn.Module, kind: type[nn.Module]) -> list[tuple[int, int]]:
    return [(m.in_channels, m.out_channels) for m in model.modules() if isinstance(m, kind)]  # type: ignore[misc]


# --------------------------------------------------------------------------------------------- classifier


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("architecture", ["victim", "evaluator", "place-evaluator"])
def test_classifier_maps_images_to_logits(architecture: str, shape: tuple[int, int, int]) -> None:
    model = ClassifierConfig(architecture=architecture, width=4, hidden=8).make(shape, 5)  # type: ignore[arg-type]
    x = torch.rand(3, *shape, generator=generator(0))
    out = model.eval()(x)
    assert out.shape == (3, 5)
    assert torch.allclose(model(x[1:2]), out[1:2], atol=1e-6)  # samples do not couple


@pytest.mark.parametrize("shape", SHAPES)
def test_a_place_evaluator_sees_where_things_are(shape: tuple[int, int, int]) -> None:
    """It answers otherwise when its feature maps are mirrored; one that pools them cannot."""
    for architecture in ("evaluator", "place-evaluator"):
        model = ClassifierConfig(architecture=architecture, width=4).make(shape, 5).eval()  # type: ignore[arg-type]
        assert isinstance(model, EvaluatorNet)
        f = model.features(torch.rand(3, *shape, generator=generator(0)))
        assert f.shape[2:] == (4, 4)
        model.features = nn.Sequential()
        assert model(f).shape == (3, 5)
        assert torch.allclose(model(f), model(f.flip(3)), atol=1e-6) == (architecture == "evaluator")


def test_weights_of_the_last_half_of_the_steps_are_averaged_at_most() -> None:
    assert ClassifierConfig(average=0.5).training()["average"] == MOST_AVERAGED == 0.5
    for average in (0.51, 1.0, -0.1):
        with pytest.raises(ConfigError, match="average"):
            ClassifierConfig(average=average)


@pytest.mark.parametrize(("size", "blocks"), [(16, 2), (32, 3), (64, 4)])
def test_victim_is_the_paper_s(size: int, blocks: int) -> None:
    model = ClassifierConfig(width=4, hidden=8).make((1, size, size), 5)
    block = ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"]
    assert kinds(model) == block * blocks + ["Flatten", "Linear", "Dropout", "Linear"]
    assert [out for _, out in widths(model, nn.Conv2d)] == [4 * 2**i for i in range(blocks)]
    assert all(m.kernel_size == (3, 3) for m in model.modules() if isinstance(m, nn.Conv2d))
    assert all(m.p == 0.5 for m in model.modules() if isinstance(m, nn.Dropout))


def test_evaluator_shares_nothing_with_the_victim() -> None:
    victim, judge = (ClassifierConfig(architecture=a).make((1, 16, 16), 5) for a in ("victim", "evaluator"))  # type: ignore[arg-type]
    assert not {"BatchNorm2d", "MaxPool2d", "ReLU", "Dropout"} & set(kinds(judge))
    assert widths(victim, nn.Conv2d) != widths(judge, nn.Conv2d)


@pytest.mark.parametrize("width", [1, 3, 6])
@pytest.mark.parametrize("architecture", ["victim", "evaluator"])
def test_any_width_works(architecture: str, width: int) -> None:
    model = ClassifierConfig(architecture=architecture, width=width, hidden=3).make((1, 16, 16), 2)  # type: ignore[arg-type]
    assert model.eval()(torch.zeros(2, 1, 16, 16)).shape == (2, 2)


def test_unsupported_size_lists_the_supported_ones() -> None:
    with pytest.raises(ValueError, match="28 is not supported; choose from: 16, 32, 64"):
        ClassifierConfig().make((1, 28, 28), 5)
    with pytest.raises(ValueError, match="28 is not supported; choose from: 16, 32, 64"):
        InversionConfig().make((1, 28, 28), 5)
    assert blocks_for(16, {16: 2}) == 2


def test_confidence_vectors_are_softmax_in_eval_mode() -> None:
    with seeded(generator(0), CPU):
        model = ClassifierConfig(width=2, hidden=4).make((1, 16, 16), 3).train()
    x = torch.rand(7, 1, 16, 16, generator=generator(1))
    c = confidence_vectors(model, x, batch=3)
    assert not model.training
    assert not c.requires_grad
    logits = model(x).detach().double()
    torch.testing.assert_close(
        c.double(), logits.exp() / logits.exp().sum(1, keepdim=True), rtol=1e-5, atol=1e-6
    )
    assert torch.equal(c[:3], confidence_vectors(model, x[:3], batch=3))
    assert torch.equal(c[3:6], confidence_vectors(model, x[3:6], batch=3))
    assert confidence_vectors(model, x[:0]).shape == (0, 3)
