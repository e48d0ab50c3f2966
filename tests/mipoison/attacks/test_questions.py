"""Images to ask about: mixtures are like images of their label, and warps are what an interpolation says."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy import ndimage

from mipoison.attacks import questions
from mipoison.attacks.questions import KINDS, mixture, pairs, patched, transformed, warped
from mipoison.models.label_means import label_means
from mipoison.randomness import generator
from tests.mipoison.attacks.helpers import SHAPE


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
    assert warped(x[:0], generator(2)).shape == x[:0].shape


def test_warps_are_as_large_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    maps: list[torch.Tensor] = []
    bends: list[torch.Tensor] = []

    def kept(x_NCHW: torch.Tensor, map_N23: torch.Tensor, bend_N2GG: torch.Tensor) -> torch.Tensor:
        maps.append(map_N23)
        bends.append(bend_N2GG)
        return x_NCHW

    monkeypatch.setattr(questions, "transformed", kept)
    warped(torch.zeros(20000, 1, 2, 2), generator(0))
    a, b = maps[0][:, :, :2].double(), maps[0][:, :, 2].double()
    turn, wide = torch.atan2(a[:, 1, 0], a[:, 0, 0]), torch.hypot(a[:, 0, 0], a[:, 1, 0])
    # The second column is (shear, 0) and the turned height.
    high = a[:, 1, 1] / turn.cos()
    shear = a[:, 0, 1] + turn.sin() * high
    strength = (1 - 0.3**3) / (3 * 0.7)  # mean of its square
    for found, middle, most in (
        (turn, 0, 0.2), (wide, 1, 0.12), (high, 1, 0.12), (shear, 0, 0.15),
        (b[:, 0], 0, 0.1), (b[:, 1], 0, 0.1),
    ):  # fmt: skip
        assert float((found - middle).abs().max()) <= most + 1e-6
        assert float((found - middle).std()) == pytest.approx(most * math.sqrt(strength / 3), rel=0.03)
        assert float((found - middle).mean()) == pytest.approx(0, abs=0.03 * most)
    assert float(bends[0].std()) == pytest.approx(0.05 * math.sqrt(strength), rel=0.03)


def test_a_bend_moves_each_part_by_what_is_drawn_for_it() -> None:
    """A constant bend is a shift of the whole; one that differs between two sides is read in each corner."""
    x = torch.rand(1, 1, 8, 8, generator=generator(0))
    still = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    constant = torch.zeros(1, 2, 4, 4)
    constant[:, 0] = 0.25  # a pixel of eight, along x
    moved = transformed(x, still, constant)
    torch.testing.assert_close(moved[..., :-1], x[..., 1:])
    left = constant.clone()
    left[:, :, :, 2:] = 0
    corners = transformed(x, still, left)
    torch.testing.assert_close(corners[..., 0], x[..., 1])
    torch.testing.assert_close(corners[..., -1], x[..., -1])


def test_a_patch_has_parts_of_both_images_with_smooth_borders() -> None:
    white, black = torch.ones(400, 2, 16, 16), torch.zeros(400, 2, 16, 16)
    made = patched(white, black, generator(0))
    assert made.shape == white.shape
    assert torch.equal(made[:, 0], made[:, 1])  # one border for all channels
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1
    assert float(made.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(made.std()) > 0.3  # most pixels are of one image
    assert float(made.diff(dim=-1).abs().amax()) < 0.8
    assert not torch.equal(made[0], made[1])
    torch.testing.assert_close(patched(white, white, generator(1)), white)


def test_of_fourteen_questions_eight_are_rotations_of_two_of_a_label() -> None:
    """Each rotation is solved for its angle from its parents, by least squares; no pixel is clamped."""
    rng = generator(1)
    label_N = torch.arange(40) % 4
    x_NCHW = 0.5 + 0.1 * torch.randn(40, *SHAPE, generator=rng, dtype=torch.float64)
    mean_ND = label_means(label_N, x_NCHW.flatten(1), 4)[label_N]
    asked = KINDS["rotations"](label_N[:30], x_NCHW, mean_ND, 14, 0.3, generator(2))
    parent_M2 = asked.parent_M2
    own_M = parent_M2[:, 0] == parent_M2[:, 1]
    assert own_M.tolist() == [True] * 120 + [False] * 300
    assert bool((label_N[parent_M2[:, 0]] == label_N[parent_M2[:, 1]]).all())
    assert int(parent_M2.max()) < 30
    assert torch.bincount(parent_M2[180:, 0]).tolist() == [8] * 30
    assert not asked.share_M[:180].any()
    found = []
    for (first, second), made_D, share in zip(
        parent_M2[180:].tolist(), asked.x_MD[180:].double(), asked.share_M[180:].tolist(), strict=True
    ):
        sides_D2 = torch.stack([x_NCHW[i].flatten() - mean_ND[first] for i in (first, second)], 1)
        weight_2 = torch.linalg.lstsq(sides_D2, made_D - mean_ND[first]).solution
        torch.testing.assert_close(weight_2.square().sum(), torch.ones(()).double(), atol=1e-4, rtol=0)
        assert share == pytest.approx(1 - float(weight_2.sum()), abs=1e-4)
        found.append(math.atan2(float(weight_2[1]), float(weight_2[0])))
    angle_M = np.array(found)
    assert angle_M.min() + 1e-4 >= 0.1
    assert angle_M.max() - 1e-4 <= math.pi / 2 - 0.1
    uniform = scipy.stats.kstest(angle_M, scipy.stats.uniform(0.1, math.pi / 2 - 0.2).cdf)
    assert uniform.pvalue > 1e-4


def test_rotations_have_the_mean_and_the_covariance_of_the_images() -> None:
    rng = generator(3)
    x_ND = 0.5 + 0.08 * torch.randn(400, 4, generator=rng, dtype=torch.float64) @ torch.diag(
        torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=torch.float64)
    )
    label_N = torch.zeros(400, dtype=torch.int64)
    mean_ND = x_ND.mean(0).expand(400, -1)
    asked = KINDS["rotations"](label_N, x_ND.reshape(400, 1, 2, 2), mean_ND, 1, 0.3, generator(4))
    made_MD = asked.x_MD.double()
    torch.testing.assert_close(made_MD.mean(0), x_ND.mean(0), atol=0.01, rtol=0)
    torch.testing.assert_close(made_MD.std(0), x_ND.std(0), rtol=0.15, atol=0)
