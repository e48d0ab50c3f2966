"""The unrolled decoder: its passes are the decoder's own and autograd's; what it cannot unroll is refused."""

import copy

import pytest
import torch
from torch import nn

from mipoison.alignment.network import Network, features_with_slope, fit_for_bf16
from mipoison.models.inversion import features
from tests.mipoison.alignment.helpers import MakeDecoder, pictures, vectors


@pytest.mark.parametrize("kind", ["log", "raw"])
@pytest.mark.parametrize("extra", [0, 1])
def test_passes_are_the_decoders(make_decoder: MakeDecoder, kind: str, extra: int) -> None:
    decoder = make_decoder(features=kind, extra_blocks=extra).double()
    c, x = vectors().requires_grad_(True), pictures(16)
    with torch.no_grad():
        state = Network(decoder).primal(c.detach(), x)
    out = decoder(c)
    torch.testing.assert_close(torch.sigmoid(state.outputs[-1]), out.detach())
    losses = (out - x).square().flatten(1).mean(1)
    (expected,) = torch.autograd.grad(losses.sum(), c)
    torch.testing.assert_close(state.gradient * state.jacobian, expected)
    assert len(state.slopes) == len(state.inputs) - 1 == len(state.deltas) - 1


@pytest.mark.parametrize("kind", ["log", "raw"])
def test_features_and_their_slope(kind: str) -> None:
    c = torch.tensor([[0.7, 0.3, 1e-25, 0.0]], dtype=torch.float64, requires_grad=True)
    f, slope = features_with_slope(c.detach(), kind)
    assert torch.equal(f, features(c.detach(), kind))
    if kind == "raw":
        assert torch.equal(slope, torch.ones_like(slope))
    else:
        assert slope[0].tolist() == pytest.approx([1 / 0.7, 1 / 0.3, 0, 0])  # clamped: it does not move


def test_a_folded_direction_moves_the_folded_weights(make_decoder: MakeDecoder) -> None:
    """The weights of a decoder that moved are the folded ones plus the folded direction, to first order."""
    decoder = make_decoder().double()
    net, h = Network(copy.deepcopy(decoder)), 1e-6  # its last weights are the decoder's own
    v = [torch.randn_like(p) for p in decoder.parameters()]
    folded = net.fold(v)
    with torch.no_grad():
        for p, d in zip(decoder.parameters(), v, strict=True):
            p += h * d
    moved = Network(decoder)
    for i, (one, other) in enumerate(zip(moved.blocks, net.blocks, strict=True)):
        for name, direction in (("weight", folded.weights[i]), ("bias", folded.biases[i])):
            slope = (getattr(one, name) - getattr(other, name)) / h
            torch.testing.assert_close(slope, direction, rtol=1e-3, atol=1e-4)


def test_what_has_no_hand_written_pass(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder()
    decoder.layers[2] = nn.ReLU()
    with pytest.raises(TypeError, match="no hand-written pass for ReLU"):
        Network(decoder)
    decoder.layers[2] = nn.BatchNorm2d(2)
    with pytest.raises(TypeError, match="this order of layers"):
        Network(decoder)


def test_a_channel_that_is_nearly_off_keeps_its_precision(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder()
    assert fit_for_bf16(decoder)
    norm = next(layer for layer in decoder.layers if isinstance(layer, nn.BatchNorm2d))
    norm.weight.data[0] = norm.weight.abs().max() / 40
    assert not fit_for_bf16(decoder)
