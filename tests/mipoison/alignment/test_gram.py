"""A block's share of each sample's gradient: its norm and products, where it is formed and where not."""

import pytest
import torch

from mipoison.alignment.gram import BlockGradients
from mipoison.alignment.network import Network
from tests.mipoison.alignment.helpers import MakeDecoder, pictures, random_target, vectors


@pytest.mark.parametrize("width", [2, 24])
def test_norms_and_products_are_those_of_the_formed_gradient(make_decoder: MakeDecoder, width: int) -> None:
    decoder = make_decoder(width=width).double()
    target, c, x = random_target(decoder), vectors(), pictures(16)
    with torch.no_grad():
        net = Network(decoder)
        state = net.primal(c, x)
    parameters = list(decoder.requires_grad_(True).parameters())
    losses = (decoder(c) - x).square().flatten(1).mean(1)
    own_NP = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    ways, start = set(), 0
    for i, block in enumerate(net.blocks):
        part = slice(start, start := start + block.n_parameters)
        with torch.no_grad():
            own = BlockGradients(net, state, i, target[part])
        ways.add(getattr(own, "gram", None))
        for n, gradients in enumerate(own_NP):
            square = sum(g.square().sum() for g in gradients[part])
            rest = zip(target[part][1:], gradients[part][1:], strict=True)
            dot = sum(((t * g).sum() for t, g in rest), torch.zeros((), dtype=torch.float64))
            torch.testing.assert_close(own.square_N[n], square)
            torch.testing.assert_close(own.dot_N[n], dot)  # of all but the convolution's weight
    assert start == len(target)
    assert {True, False} & ways == {width == 24} | {False}
