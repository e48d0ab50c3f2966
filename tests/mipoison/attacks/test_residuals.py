"""Residuals against NumPy loops; the basis against a singular value decomposition."""

import numpy as np
import pytest
import torch

import mipoison.attacks.residuals as module
from mipoison.attacks.residuals import Residuals
from mipoison.models.label_means import label_means
from mipoison.randomness import generator

K, LABELS = 4, torch.tensor([0, 0, 1, 0, 1, 2, 1, 0, 1, 0])


def images(n: int = 10, d: int = 6) -> torch.Tensor:
    return torch.rand(n, d, generator=generator(0, "x"), dtype=torch.float64)


def parts(x: torch.Tensor, components: int = 99) -> Residuals:
    return Residuals(LABELS, x, K, components, generator(0))


@pytest.mark.parametrize("d", [4, 6, 30])  # fewer pixels than images, and more
def test_without_is_what_a_mean_without_the_image_leaves(d: int) -> None:
    x = images(d=d)
    p = parts(x)
    for i in range(10):
        others = np.arange(10) != i
        same = others & (LABELS.numpy() == int(LABELS[i]))
        expected = x.numpy()[i] - x.numpy()[same if same.any() else others].mean(0)
        np.testing.assert_allclose(p.without_NP[i], expected @ p.basis_DP.numpy(), atol=1e-10)


@pytest.mark.parametrize("d", [6, 30])
def test_the_basis_is_that_of_the_singular_value_decomposition(d: int) -> None:
    x = images(d=d)
    p = parts(x, components=3)
    rest = x.numpy() - label_means(LABELS, x, K).numpy()[LABELS.numpy()]
    _, _, right = np.linalg.svd(rest)
    np.testing.assert_allclose(p.basis_DP.numpy() @ p.basis_DP.numpy().T, right[:3].T @ right[:3], atol=1e-9)
    np.testing.assert_allclose(p.basis_DP.T @ p.basis_DP, np.eye(3), atol=1e-9)


def test_all_components_give_the_images_back() -> None:
    x = images(d=5)
    p = parts(x)
    torch.testing.assert_close(p.images(LABELS, p.rest_NP), x)


def test_images_that_are_all_means_have_no_components() -> None:
    p = Residuals(torch.arange(4), images(4), 4, 9, generator(0))
    assert p.rest_NP.shape == (4, 0)
    torch.testing.assert_close(p.images(torch.arange(4), p.rest_NP), images(4))


def test_components_come_from_a_draw_of_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BASIS_IMAGES", 7)
    x = images(d=30)
    first, second = parts(x).basis_DP, Residuals(LABELS, x, K, 99, generator(1)).basis_DP
    assert first.shape[1] <= 7
    assert first.shape != second.shape or not torch.allclose(first, second)
