"""Leave-one-out errors in closed form against literal refits; kernels and solutions against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process.kernels import RBF, Matern
from sklearn.kernel_ridge import KernelRidge

from mipoison.attacks.kernel_ridge import PENALTIES, PROFILES, Kernel, Path
from mipoison.attacks.residuals import Residuals
from mipoison.models.label_means import label_means
from mipoison.randomness import generator

N, K, D = 24, 4, 5


def planted() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, labels and images that follow them. Label 3 has one image, with which its mean is lost."""
    rng = generator(0, "planted")
    z = torch.randn(N, 3, generator=rng, dtype=torch.float64)
    label = torch.arange(N) % 3
    label[7] = 3
    x = torch.sin(z @ torch.randn(3, D, generator=rng, dtype=torch.float64)) + label[:, None]
    return z, label, x


def literal(kernel: Kernel, penalty: float, landmarks: int | None) -> np.ndarray:
    """Leave-one-out errors (N, D) by refitting: means, residuals and one linear system per image."""
    z, label, x = planted()
    errors = []
    for i in range(N):
        rest = torch.arange(N) != i
        mean = label_means(label[rest], x[rest], K)
        target = (x[rest] - mean[label[rest]]).numpy()
        at = rest if landmarks is None else torch.arange(N) < landmarks
        to = kernel(z[rest], label[rest], z[at], label[at]).numpy()
        asked = kernel(z[i : i + 1], label[i : i + 1], z[at], label[at]).numpy()
        if landmarks is None:
            weight = np.linalg.solve(to + penalty * np.eye(N - 1), target)
        else:  # least squares with the landmarks' kernel as the norm
            own = kernel(z[at], label[at], z[at], label[at]).numpy()
            weight = np.linalg.solve(to.T @ to + penalty * own, to.T @ target)
        errors.append(x[i].numpy() - mean[label[i]].numpy() - (asked @ weight)[0])
    return np.stack(errors)


@pytest.mark.parametrize("landmarks", [None, 9])
@pytest.mark.parametrize("kernel", [Kernel("gaussian", 1.0), Kernel("laplacian", 0.7, across=0.0)])
def test_leaving_one_out_is_a_literal_refit(kernel: Kernel, landmarks: int | None) -> None:
    z, label, x = planted()
    parts = Residuals(label, x, K, D, generator(0))
    assert parts.rest_NP.shape[1] == D  # a full basis: nothing is lost
    if landmarks is None:
        path = Path(kernel(z, label, z, label))
    else:
        m, own = z[:landmarks], label[:landmarks]
        path = Path(kernel(z, label, m, own), kernel(m, own, m, own))
    for penalty in (1e-2, 1.0, 10.0):
        (error_NP,) = path.left_out(parts, label, (penalty,))
        found = (error_NP @ parts.basis_DP.mT).numpy()
        np.testing.assert_allclose(found, literal(kernel, penalty, landmarks), atol=1e-8)


def test_all_penalties_come_from_one_decomposition() -> None:
    z, label, x = planted()
    parts = Residuals(label, x, K, D, generator(0))
    path = Path(Kernel("matern", 2.0)(z, label, z, label))
    for together, penalty in zip(path.left_out(parts, label), PENALTIES, strict=True):
        torch.testing.assert_close(together, path.left_out(parts, label, (penalty,))[0])


@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_solutions_are_scikit_learn_s(penalty: float) -> None:
    z, label, x = planted()
    parts = Residuals(label, x, K, D, generator(0))
    gram = Kernel("gaussian", 1.0)(z, label, z, label)
    reference = KernelRidge(alpha=penalty, kernel="precomputed").fit(gram.numpy(), parts.rest_NP.numpy())
    np.testing.assert_allclose(Path(gram).solution(parts.rest_NP, penalty), reference.dual_coef_, atol=1e-9)
    # With all images as landmarks, Nystroem's functions are all there are.
    np.testing.assert_allclose(
        gram @ Path(gram, gram).solution(parts.rest_NP, penalty), reference.predict(gram.numpy()), atol=1e-6
    )


@pytest.mark.parametrize(
    ("profile", "reference"),
    [("gaussian", RBF(2.0)), ("laplacian", Matern(2.0, nu=0.5)), ("matern", Matern(2.0, nu=1.5))],
)
def test_kernels_are_scikit_learn_s(profile: str, reference: RBF) -> None:
    z, label, _ = planted()
    scaled = z.numpy() / np.sqrt(3)  # the width counts in differences per feature
    same = (label[:, None] == label).numpy()
    found = Kernel(profile, 2.0, across=0.3)(z, label, z, label).numpy()
    np.testing.assert_allclose(found, reference(scaled) * np.where(same, 1, 0.3), atol=1e-12)


def test_every_profile_is_one_at_distance_zero_and_falls() -> None:
    d = torch.linspace(0, 5, 20, dtype=torch.float64)
    for f in PROFILES.values():
        assert float(f(d)[0]) == 1
        assert bool((f(d).diff() < 0).all())
