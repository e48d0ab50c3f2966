"""The decoder of Yang et al., its log features, and their gradients."""

import math
import pickle

import pytest
import torch
from torch import nn

from mipoison.models.inversion import InversionConfig, InversionNet, features
from mipoison.randomness import generator
from tests.mipoison.models.helpers import SHAPES, kinds

# -------------------------------------------------------------------------------------------- inversion


@pytest.mark.parametrize("extra_blocks", [0, 1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_decoder_maps_vectors_to_images(shape: tuple[int, int, int], extra_blocks: int) -> None:
    model = InversionConfig(width=2, extra_blocks=extra_blocks).make(shape, 5).eval()
    c = torch.softmax(torch.randn(3, 5, generator=generator(0)), 1)
    out = model(c).detach()
    assert out.shape == (3, *shape)
    assert float(out.min()) > 0
    assert float(out.max()) < 1
    assert torch.allclose(model(c[1:2]), out[1:2], atol=1e-6)


@pytest.mark.parametrize(("size", "blocks"), [(16, 3), (32, 4), (64, 5)])
def test_decoder_is_the_one_of_yang_et_al(size: int, blocks: int) -> None:
    model = InversionConfig(width=2).make((1, size, size), 5)
    convolutions = [m for m in model.layers if isinstance(m, nn.ConvTranspose2d)]
    assert len(convolutions) == blocks
    assert (convolutions[0].kernel_size, convolutions[0].stride, convolutions[0].padding) == (
        (4, 4),
        (1, 1),
        (0, 0),
    )
    for layer in convolutions[1:]:
        assert (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))
    assert kinds(model) == ["ConvTranspose2d", "BatchNorm2d", "Tanh"] * (blocks - 1) + ["ConvTranspose2d"]
    assert [c.out_channels for c in convolutions] == [2 * 2**i for i in reversed(range(blocks - 1))] + [1]


def test_extra_blocks_keep_the_size() -> None:
    plain, extra = (InversionConfig(width=2, extra_blocks=e).make((1, 16, 16), 5) for e in (0, 1))
    assert len(extra.layers) == len(plain.layers) + 3
    added = extra.layers[6]
    assert isinstance(added, nn.ConvTranspose2d)
    assert added.stride == (1, 1)
    assert added(torch.zeros(1, 2, 8, 8)).shape == (1, 2, 8, 8)


def test_log_features_are_shifted_and_clamped() -> None:
    c = torch.tensor([[1.0, 0.0, 1e-10, 1e-30]], dtype=torch.float64)
    expected = torch.tensor([[50.0, 0.0, 50 + math.log(1e-10), 0.0]], dtype=torch.float64)
    torch.testing.assert_close(features(c, "log"), expected)
    torch.testing.assert_close(features(c.float(), "log"), expected.float())
    assert torch.equal(features(c, "raw"), c)
    assert float(features(c, "log").min()) >= 0


def test_the_decoder_uses_its_features(make_decoder) -> None:
    log, raw = make_decoder(features="log"), make_decoder(features="raw")
    c = torch.tensor([[0.7, 0.2, 0.1, 0.0]])
    raw.layers.load_state_dict(log.layers.state_dict())
    torch.testing.assert_close(log(c), torch.sigmoid(raw.layers(features(c, "log")[:, :, None, None])))
    assert not torch.allclose(log(c), raw(c))


def test_gradients_through_log_features_are_finite_at_zero(make_decoder) -> None:
    c = torch.tensor([[0.7, 0.3, 0.0, 0.0]], requires_grad=True)
    make_decoder()(c).sum().backward()
    assert c.grad is not None
    assert bool(torch.isfinite(c.grad).all())


def test_models_pickle(make_decoder) -> None:
    model = make_decoder()
    again: InversionNet = pickle.loads(pickle.dumps(model))
    c = torch.full((1, 4), 0.25)
    assert torch.equal(again(c), model(c))
    assert again.kind == model.kind
