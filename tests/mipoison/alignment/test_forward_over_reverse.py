"""The hand-written tangent pass against torch.func's, its parameter gradients against autograd's."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp

from mipoison.alignment.forward_over_reverse import Folded, SampleTerms, parameter_gradients, tangent
from mipoison.alignment.network import Network
from tests.mipoison.alignment.helpers import MakeDecoder, pictures, random_target, vectors


@pytest.mark.parametrize("kind", ["log", "raw"])
@pytest.mark.parametrize("extra", [0, 1])
@torch.no_grad()
def test_the_tangent_is_that_of_torch(make_decoder: MakeDecoder, kind: str, extra: int) -> None:
    decoder = make_decoder(features=kind, extra_blocks=extra).double()
    v, c, x = random_target(decoder), vectors(), pictures(16)
    net = Network(decoder)
    state = net.primal(c, x)
    names = [name for name, _ in decoder.named_parameters()]

    def losses(theta: tuple[Tensor, ...], c_NK: Tensor) -> Tensor:
        out = functional_call(decoder, dict(zip(names, theta, strict=True)), (c_NK,))
        return (out - x).square().flatten(1).mean(1).sum()

    theta = tuple(p.detach() for p in decoder.parameters())
    _, expected = jvp(lambda t: grad(losses, argnums=1)(t, c), (theta,), (tuple(v),))
    torch.testing.assert_close(tangent(net, state, Folded(net, net.fold(v))), expected)
    for found, plain in zip(parameter_gradients(net, state), grad(losses)(theta, c), strict=True):
        torch.testing.assert_close(found, plain)

    # One direction t - a g_i a sample: linear in both parts.
    terms = SampleTerms(net, state, v, Folded(net, net.fold_weights(v)))
    one, none = torch.ones(len(c), dtype=torch.float64), torch.zeros(len(c), dtype=torch.float64)
    torch.testing.assert_close(terms.tangent(one, none), expected)
    half = terms.tangent(0.5 * one, 2 * one)
    torch.testing.assert_close(half, 0.5 * expected + 2 * terms.tangent(none, one))
    # -<g_i, g_i> with the left side held fixed is half of the squared norm's derivative.
    for i in range(len(c)):
        theta_i = (theta,)

        def square(c_K: Tensor, i: int = i, theta_i: tuple[tuple[Tensor, ...]] = theta_i) -> Tensor:
            def loss(t: tuple[Tensor, ...]) -> Tensor:
                out = functional_call(decoder, dict(zip(names, t, strict=True)), (c_K[None],))
                return (out - x[i : i + 1]).square().mean()

            return sum(g.square().sum() for g in grad(loss)(*theta_i))

        torch.testing.assert_close(terms.tangent(none, one)[i], -0.5 * grad(square)(c[i]))
