"""Augmentation of training images: range, shape, determinism, and each change against its own definition."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch
from scipy import ndimage

from mipoison.models import augmentation
from mipoison.models.augmentation import AUGMENTATIONS, faces
from mipoison.models.classifier import ClassifierConfig
from mipoison.randomness import generator
from mipoison.scene_config import SceneConfig

AMOUNTS = ("TURN", "ZOOM", "SHIFT", "CONTRAST", "BRIGHTNESS")


def with_amounts(monkeypatch: pytest.MonkeyPatch, **amounts: float) -> None:
    """Leave only some changes, all others at zero."""
    for name in AMOUNTS:
        monkeypatch.setattr(augmentation, name, amounts.get(name, 0.0))


def mirrored(n: int) -> torch.Tensor:
    """Which of n images are mirrored by a generator with seed 0."""
    rng = generator(0)
    torch.rand(6, n, generator=rng)
    return torch.rand(n, generator=rng) < 0.5


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 16, 16)])
def test_images_keep_shape_and_range(shape: tuple[int, int, int]) -> None:
    x = torch.rand(50, *shape, generator=generator(1)).round()  # black and white: the ends of the range
    out = faces(x, generator(0))
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.min() >= 0
    assert out.max() <= 1
    assert (out - x).abs().flatten(1).amax(1).min() > 0.1  # every image is changed


def test_the_generator_alone_decides() -> None:
    x = torch.rand(4, 1, 16, 16, generator=generator(1))
    torch.manual_seed(5)
    first = faces(x, generator(0))
    torch.manual_seed(6)
    assert torch.equal(first, faces(x, generator(0)))
    assert not torch.equal(first, faces(x, generator(1)))
    assert torch.equal(x, torch.rand(4, 1, 16, 16, generator=generator(1)))  # not in place


def test_mirroring_alone_is_a_flip(monkeypatch: pytest.MonkeyPatch) -> None:
    with_amounts(monkeypatch)
    x = torch.rand(40, 3, 16, 16, generator=generator(1))
    flip_N = mirrored(40)
    assert 10 < flip_N.sum() < 30
    expected = torch.where(flip_N[:, None, None, None], x.flip(3), x)
    torch.testing.assert_close(faces(x, generator(0)), expected, atol=1e-5, rtol=0)


def test_rotation_zoom_and_shift_agree_with_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against scipy's affine transform with bilinear interpolation and repeated borders."""
    turn, zoom, shift, size = 0.3, 0.2, 0.1, 32
    with_amounts(monkeypatch, TURN=turn, ZOOM=zoom, SHIFT=shift)
    x = torch.rand(6, 1, size, size, generator=generator(1))
    out = faces(x, generator(0))
    u = (2 * torch.rand(6, 6, generator=generator(0)) - 1).double().numpy()
    for i, flipped in enumerate(mirrored(6).tolist()):
        angle, scale = turn * u[0, i], np.exp(-zoom * u[1, i])
        rotate = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        source = rotate @ np.diag([1, -1 if flipped else 1])  # from a pixel's (row, column) to its source's
        middle = (size - 1) / 2
        offset = middle + size * shift * u[[3, 2], i] - source @ [middle, middle]
        expected = ndimage.affine_transform(x[i, 0].double().numpy(), source, offset, order=1, mode="nearest")
        np.testing.assert_allclose(out[i, 0].numpy(), expected, atol=1e-4)


def test_contrast_and_brightness_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with_amounts(monkeypatch, CONTRAST=0.2, BRIGHTNESS=0.05)
    x = torch.rand(8, 3, 16, 16, generator=generator(1)) * 0.3 + 0.35
    out = faces(x, generator(0))
    u = 2 * torch.rand(6, 8, generator=generator(0)) - 1
    flipped = torch.where(mirrored(8)[:, None, None, None], x.flip(3), x)
    mean = x.mean((1, 2, 3))
    torch.testing.assert_close(out.mean((1, 2, 3)), mean + 0.05 * u[5], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        out - out.mean((1, 2, 3), keepdim=True),
        (flipped - flipped.mean((1, 2, 3), keepdim=True)) * (0.2 * u[4]).exp()[:, None, None, None],
        atol=1e-5,
        rtol=0,
    )


def test_configurations_know_all_names() -> None:
    assert AUGMENTATIONS["none"] is None
    for config, field in ((ClassifierConfig, "augment"), (SceneConfig, "victim_augment")):
        assert set(typing.get_args(typing.get_type_hints(config)[field])) == set(AUGMENTATIONS)
