"""Images and questions with their answers: what is held out takes its questions along; the regressions."""

import numpy as np
import pytest
import torch

from mipoison.attacks.asked_pairs import Data
from mipoison.attacks.kernel_ridge import Kernel
from mipoison.attacks.questions import pairs
from mipoison.attacks.selection import Standardised
from mipoison.models.label_means import label_means
from mipoison.randomness import generator
from mipoison.simplex import label_of


def data(n: int = 40, each: int = 3, pixels: int = 5) -> Data:
    rng = generator(0, "data")
    c_NK = torch.softmax(2 * torch.randn(n, 3, generator=rng, dtype=torch.float64), 1)
    x_ND = torch.rand(n, pixels, generator=rng, dtype=torch.float64)
    parent_M2 = pairs(label_of(c_NK), each, rng)
    answer_MK = torch.softmax(2 * torch.randn(len(parent_M2), 3, generator=rng, dtype=torch.float64), 1)
    share_M = torch.zeros(len(parent_M2), dtype=torch.float64)
    return Data(c_NK, x_ND, answer_MK, x_ND[parent_M2].mean(1), parent_M2, share_M)


def test_what_is_held_out_takes_its_mixtures_along() -> None:
    whole, out_N = data(), torch.zeros(40, dtype=torch.bool)
    out_N[:13] = True
    rest = whole.without(out_N)
    assert len(rest.c_NK) == len(rest.y_NP) == 27
    kept = [m for m, (a, b) in enumerate(whole.parent_M2.tolist()) if a >= 13 and b >= 13]
    assert 0 < len(kept) < len(whole.parent_M2)
    assert torch.equal(rest.mixed_MP, whole.mixed_MP[kept])
    assert torch.equal(rest.answer_MK, whole.answer_MK[kept])


@pytest.mark.parametrize("landmarks", [20, 500])
def test_the_regression_is_the_normal_equations(landmarks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights w of the landmarks' kernels that minimise ``|y - G w|^2 + penalty w G_landmarks w``."""
    monkeypatch.setattr("mipoison.attacks.kernel_choice.EXACT", 10)
    d, kernel, penalty = data(), Kernel("inverse", 0.5, across=0.5), 0.3
    mean_KP = label_means(label_of(d.c_NK), d.y_NP, 3)
    found = d.regression(Standardised(d.c_NK, "log"), kernel, mean_KP, landmarks)
    c = torch.cat([d.c_NK, d.answer_MK])
    gram = found.gram(c).numpy()
    own = found.gram(d.c_NK[:landmarks]).numpy()
    y = (torch.cat([d.y_NP, d.mixed_MP]) - mean_KP[label_of(c)]).numpy()
    expected = np.linalg.solve(gram.T @ gram + penalty * own, gram.T @ y)
    np.testing.assert_allclose(gram @ found.weights(penalty).numpy(), gram @ expected, atol=1e-7)
    voter = found.voter(penalty, 0.5)
    np.testing.assert_allclose(voter(d.c_NK).numpy(), 0.5 * found.gram(d.c_NK).numpy() @ expected, atol=1e-7)


def test_regressions_count_questions_as_images_or_not() -> None:
    """None is the regression on all pairs; without a difference both agree, with one they do not."""
    d, kernel = data(), Kernel("inverse", 0.5, across=0.5)
    mean_KP, standardise = label_means(label_of(d.c_NK), d.y_NP, 3), Standardised(d.c_NK, "log")
    (plain,) = d.regressions(standardise, kernel, mean_KP, 600, (None,))
    same, other = d.regressions(standardise, kernel, mean_KP, 600, (0.0, 0.3))
    said = [found.gram(d.c_NK) @ found.weights(0.3) for found in (plain, same, other)]
    torch.testing.assert_close(said[0], said[1], atol=1e-6, rtol=0)
    assert float((said[0] - said[2]).abs().max()) > 0.01
