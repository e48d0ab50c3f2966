"""Double backward: all samples at once as one by one, and the angle between two gradients."""

import torch

from mipoison.alignment.double_backward import align_samples, align_samples_loop, angle_samples
from tests.mipoison.alignment.helpers import MakeDecoder, flat_gradient, pictures, random_target, vectors


def test_all_at_once_are_those_of_one_at_a_time(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder().double()
    target, c, x = random_target(decoder), vectors(), pictures(16)
    for objective in ("cosine", "distance"):
        at_once, loop = (f(decoder, target, c, x, objective) for f in (align_samples, align_samples_loop))
        torch.testing.assert_close(at_once.cosine_N, loop.cosine_N)
        torch.testing.assert_close(at_once.gradient_NK, loop.gradient_NK)
    assert align_samples_loop(decoder, target, c[:0], x[:0]).gradient_NK.shape == (0, 4)


def test_the_angle_is_that_of_the_two_gradients(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder().double()
    c, reference, x = vectors(seed=1), vectors(seed=2), pictures(16)
    found = angle_samples(decoder, c, reference, x)
    for i in range(len(c)):
        row = slice(i, i + 1)
        g, g0 = flat_gradient(decoder, c[row], x[row]), flat_gradient(decoder, reference[row], x[row])
        torch.testing.assert_close(found.cosine_N[i], torch.dot(g, g0) / (g.norm() * g0.norm()))
    same = angle_samples(decoder, c, c, x)  # its maximum
    torch.testing.assert_close(same.cosine_N, torch.ones_like(same.cosine_N))
    assert float(same.gradient_NK.abs().max()) < 1e-9 < float(found.gradient_NK.abs().max())
