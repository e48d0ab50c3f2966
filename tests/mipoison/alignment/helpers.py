"""What the tests of the engines share: vectors, pictures, a target, and plain autograd."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mipoison.alignment import (
    Aligned,
)
from mipoison.models.inversion import InversionNet
from mipoison.randomness import generator

MakeDecoder = Callable[..., InversionNet]

N, K = 3, 4


def vectors(n: int = N, k: int = K, seed: int = 0) -> Tensor:
    """Confidence vectors in float64; the second has a tail as small as a confident victim's."""
    c_NK = torch.softmax(1.5 * torch.randn(n, k, generator=generator(seed, "c"), dtype=torch.float64), 1)
    if n > 1:
        c_NK[1] = torch.softmax(torch.arange(k, dtype=torch.float64) * 6, 0)
    return c_NK


def pictures(size: int, n: int = N, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, size, size, generator=generator(seed, "x"), dtype=torch.float64)


def random_target(decoder: InversionNet) -> list[Tensor]:
    rng = generator(0, "target")
    return [torch.randn(p.shape, generator=rng, dtype=torch.float64) * 0.1 for p in decoder.parameters()]


def flat_gradient(decoder: InversionNet, c_NK: Tensor, x_NCHW: Tensor, create_graph: bool = False) -> Tensor:
    """grad_theta of the mean squared error, one long vector: plain autograd."""
    model = decoder if create_graph else copy.deepcopy(decoder)
    parameters = list(model.parameters())
    for p in parameters:
        p.requires_grad_(True)
    loss = nn.functional.mse_loss(model(c_NK), x_NCHW)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=create_graph)])


def value_of(g: Tensor, t: Tensor, objective: str) -> tuple[Tensor, Tensor]:
    cosine = torch.dot(t, g) / (t.norm() * g.norm())
    return (1 - cosine if objective == "cosine" else (t - g).square().sum()), cosine


def slow(
    decoder: InversionNet, target: list[Tensor], c_NK: Tensor, x_NCHW: Tensor, objective: str
) -> Aligned:
    """One double backward a sample."""
    t = torch.cat([v.flatten() for v in target])
    cosines, gradients, values = [], [], []
    for i in range(len(c_NK)):
        model = copy.deepcopy(decoder)
        c = c_NK[i : i + 1].clone().requires_grad_(True)
        value, cosine = value_of(flat_gradient(model, c, x_NCHW[i : i + 1], create_graph=True), t, objective)
        gradients.append(torch.autograd.grad(value, c)[0])
        cosines.append(cosine.detach())
        values.append(value.detach())
    return Aligned(torch.stack(cosines), torch.cat(gradients), torch.stack(values))


def slow_batch(
    decoder: InversionNet, target: list[Tensor], c_NK: Tensor, x_NCHW: Tensor, objective: str
) -> Aligned:
    model, t = copy.deepcopy(decoder), torch.cat([v.flatten() for v in target])
    c = c_NK.clone().requires_grad_(True)
    value, cosine = value_of(flat_gradient(model, c, x_NCHW, create_graph=True), t, objective)
    gradient = torch.autograd.grad(value, c)[0]
    return Aligned(cosine.detach().expand(len(c)), gradient, value.detach().expand(len(c)))


def row_cosines(a_NK: Tensor, b_NK: Tensor) -> Tensor:
    return nn.functional.cosine_similarity(a_NK.double(), b_NK.double(), dim=1)


REFERENCES = {"sample": slow, "batch": slow_batch}
