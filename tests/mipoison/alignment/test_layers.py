"""Products of per-sample gradients, layer by layer, against the gradients that autograd forms."""

import pytest
import torch
from torch import Tensor, nn

from mipoison.alignment.layers import gram_is_smaller, layer_inner, layer_products
from mipoison.randomness import generator


def tensors(*shape: int, name: str) -> Tensor:
    return torch.randn(shape, generator=generator(0, name), dtype=torch.float64)


def gradients(layer: nn.Module, a: Tensor, b: Tensor) -> list[Tensor]:
    """Of <b_i, layer(a_i)>, a row a sample: plain autograd."""
    rows = []
    for i in range(len(a)):
        value = (layer(a[i : i + 1]) * b[i : i + 1]).sum()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, list(layer.parameters()))]))
    return rows


def layers() -> list[tuple[nn.Module, int]]:
    norm = nn.BatchNorm2d(3).double().eval()
    norm.running_mean, norm.running_var = tensors(3, name="mean"), tensors(3, name="var").abs() + 0.5
    return [
        (nn.ConvTranspose2d(3, 2, 4, 2, 1).double(), 2),  # few places: Gram matrices
        (nn.ConvTranspose2d(3, 2, 4, 2, 1, bias=False).double(), 9),  # many: the gradient itself
        (norm, 5),
    ]


@pytest.mark.parametrize("which", range(3))
def test_products_are_those_of_the_formed_gradients(which: int) -> None:
    layer, side = layers()[which]
    a, a0 = (tensors(2, 3, side, side, name=n) for n in ("a", "a0"))
    out = layer(a)
    b, b0 = (tensors(*out.shape, name=n) for n in ("b", "b0"))
    target = [tensors(*p.shape, name=f"t{i}") for i, p in enumerate(layer.parameters())]
    flat = torch.cat([t.flatten() for t in target])
    g, g0 = gradients(layer, a, b), gradients(layer, a0, b0)
    with torch.no_grad():
        dot, square = layer_products(layer, a, b, iter(target))
        inner = layer_inner(layer, a, b, a0, b0)
    torch.testing.assert_close(dot, torch.stack([torch.dot(flat, row) for row in g]))
    torch.testing.assert_close(square, torch.stack([row.square().sum() for row in g]))
    torch.testing.assert_close(inner, torch.stack([torch.dot(x, y) for x, y in zip(g, g0, strict=True)]))


def test_both_ways_are_taken() -> None:
    assert gram_is_smaller(torch.empty(1, 3, 4), torch.empty(1, 32, 4)) is False
    assert gram_is_smaller(torch.empty(1, 64, 4), torch.empty(1, 512, 4)) is True


def test_another_layer_is_refused() -> None:
    x = torch.zeros(1, 2)
    with pytest.raises(TypeError, match="no per-sample gradient for Linear"):
        layer_products(nn.Linear(2, 2), x, x, iter([]))
    with pytest.raises(TypeError, match="no per-sample gradient for Linear"):
        layer_inner(nn.Linear(2, 2), x, x, x, x)
