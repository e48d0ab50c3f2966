"""Patches and their sum against unfold, and around a product against a transposed convolution."""

import pytest
import torch
import torch.nn.functional as F

from mipoison.alignment.unfold import channels_last, fold_columns, unfold_map
from mipoison.randomness import generator


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 2, 1), (3, 1, 1), (4, 1, 0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_gather_and_spread(kernel: int, stride: int, padding: int, channels: int) -> None:
    rng = generator(0, "patches")
    a = torch.randn(2, 5, 3, 4, generator=rng, dtype=torch.float64)
    weight = torch.randn(5, channels, kernel, kernel, generator=rng, dtype=torch.float64)
    out = F.conv_transpose2d(a, weight, None, stride, padding)
    matrix = weight.permute(0, 2, 3, 1).flatten(1)
    columns = a.permute(0, 2, 3, 1).flatten(1, 2) @ matrix
    torch.testing.assert_close(fold_columns(columns, (3, 4), kernel, stride, padding), out)

    b = torch.randn(out.shape, generator=rng, dtype=torch.float64)
    patches = unfold_map(b, kernel, stride, padding)
    unfolded = F.unfold(b, kernel, padding=padding, stride=stride)  # (N, C k k, places)
    unfolded = unfolded.unflatten(1, (channels, kernel * kernel)).permute(0, 3, 2, 1).flatten(2)
    assert torch.equal(patches, unfolded)
    # Each is the other's adjoint.
    torch.testing.assert_close((patches * columns).sum(), (b * out).sum())


def test_channels_are_last_in_memory_even_one() -> None:
    for channels in (1, 3):
        a = torch.randn(2, channels, 4, 5)
        found = channels_last(a)
        assert torch.equal(found, a)
        assert found.stride()[1] == 1
    assert channels_last(torch.ones(3)).shape == (3,)
