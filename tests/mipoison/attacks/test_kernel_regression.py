"""The regression against the normal equations, with all answers as landmarks and with few."""

import numpy as np
import pytest
import torch

from mipoison.attacks.kernel_regression import Regression
from mipoison.attacks.kernel_ridge import Kernel
from mipoison.attacks.selection import Standardised
from mipoison.randomness import generator


@pytest.mark.parametrize("landmarks", [12, 40, 99])
def test_it_solves_the_normal_equations(landmarks: int) -> None:
    """Weights w that minimise ``|y - G w|^2 + penalty w G_landmarks w``; a voter predicts its share."""
    rng, penalty = generator(0, "regression"), 0.3
    c_NK = torch.softmax(2 * torch.randn(40, 3, generator=rng, dtype=torch.float64), 1)
    y_NP = torch.randn(40, 5, generator=rng, dtype=torch.float64)
    found = Regression(Standardised(c_NK, "log"), Kernel("inverse", 0.5), c_NK, y_NP, landmarks)
    gram, own, y = found.gram(c_NK).numpy(), found.gram(c_NK[:landmarks]).numpy(), y_NP.numpy()
    assert gram.shape == (40, min(40, landmarks))
    expected = gram @ np.linalg.solve(gram.T @ gram + penalty * own, gram.T @ y)
    np.testing.assert_allclose(gram @ found.weights(penalty).numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(found.voter(penalty, 0.25)(c_NK).numpy(), 0.25 * expected, atol=1e-7)
