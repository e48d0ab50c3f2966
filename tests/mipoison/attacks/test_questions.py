"""Images to ask about: mixtures are like images of their label, and warps are what an interpolation says."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from mipoison.attacks import questions
from mipoison.attacks.questions import mixture, pairs, transformed, warped
from mipoison.models.label_means import label_means
from mipoison.randomness import generator


def test_each_image_is_mixed_with_others_of_its_label() -> None:
    label_N = torch.tensor([0, 1, 0, 2, 0, 1])
    parent_M2 = pairs(label_N, 50, generator(0))
    first, second = parent_M2.T
    assert torch.bincount(first, minlength=6).tolist() == [50, 50, 50, 0, 50, 50]  # 3 is alone with its label
    assert torch.equal(label_N[first], label_N[second])
    assert bool((first != second).all())
    assert set(second[first == 0].tolist()) == {2, 4}
    assert pairs(torch.arange(4), 3, generator(0)).shape == (0, 2)


def test_mixtures_have_the_mean_and_the_covariance_of_the_images() -> None:
    rng = np.random.default_rng(0)
    covariance = np.array([[0.006, 0.003], [0.003, 0.004]])
    x = torch.from_numpy(rng.multivariate_normal([0.4, 0.6], covariance, 4000))
    label_N = torch.zeros(len(x), dtype=torch.int64)
    parent_M2 = pairs(label_N, 5, generator(0))
    mixed = mixture(x, label_means(label_N, x, 1)[label_N], parent_M2, 0.7).numpy()
    np.testing.assert_allclose(mixed.mean(0), [0.4, 0.6], atol=0.005)
    np.testing.assert_allclose(np.cov(mixed.T), covariance, atol=0.0005)
    far = mixture(torch.tensor([[0.0], [1.0]]), torch.full((2, 1), 0.5), torch.tensor([[0, 0], [1, 1]]), 0.7)
    assert far.tolist() == [[0.0], [1.0]]  # these mixtures would lie outside [0, 1]


def test_a_map_moves_pixels_as_an_interpolation_of_scipy_does() -> None:
    """Rotated by 0.3, a tenth larger and moved; scipy counts in pixels, rows first."""
    x = torch.rand(1, 2, 9, 9, generator=generator(0))
    a = 0.9 * np.array([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
    b = np.array([0.2, -0.1])
    found = transformed(x, torch.from_numpy(np.c_[a, b])[None].float())[0].numpy()
    pixels = a[::-1, ::-1]  # (y, x) in place of (x, y)
    offset = 4 - pixels @ [4, 4] + b[::-1] * 9 / 2
    for channel in range(2):
        expected = ndimage.affine_transform(
            x[0, channel].double().numpy(), pixels, offset, order=1, mode="nearest"
        )
        np.testing.assert_allclose(found[channel], expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 12, 20)])
def test_warps_stay_images_and_near_their_own(shape: tuple[int, int, int]) -> None:
    coarse = torch.rand(200, shape[0], 4, 4, generator=generator(1))
    x = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    w = warped(x, generator(2))
    assert w.shape == x.shape
    assert w.dtype == torch.float32
    assert float(w.min()) >= 0
    assert float(w.max()) <= 1
    own = (w - x).square().flatten(1).mean(1)
    other = (w - x.roll(1, 0)).square().flatten(1).mean(1)
    assert bool((own > 1e-6).all())  # each is warped
    assert float(own.mean()) < 0.2 * float(other.mean())
    assert torch.equal(w, warped(x, generator(2)))


def test_warps_are_as_large_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    maps: list[torch.Tensor] = []

    def kept(x_NCHW: torch.Tensor, map_N23: torch.Tensor) -> torch.Tensor:
        maps.append(map_N23)
        return x_NCHW

    monkeypatch.setattr(questions, "transformed", kept)
    warped(torch.zeros(20000, 1, 2, 2), generator(0))
    a, b = maps[0][:, :, :2].double(), maps[0][:, :, 2].double()
    size, turn = torch.linalg.det(a).sqrt(), torch.atan2(a[:, 1, 0], a[:, 0, 0])
    for found, middle, most in ((size, 1, 0.08), (turn, 0, 0.15), (b[:, 0], 0, 0.12), (b[:, 1], 0, 0.12)):
        away = (found - middle).abs()
        assert float(away.max()) <= most + 1e-6
        assert float((found - middle).std()) == pytest.approx(most / math.sqrt(3), rel=0.03)  # drawn evenly
        assert float((found - middle).mean()) == pytest.approx(0, abs=0.03 * most)
