"""Tests of mipoison.simplex against references that share no code with it.

Two kinds of reference: SciPy's quadratic programs for few classes, and for any number of classes a
certificate of optimality. For the simplex cut with the argmax cone the certificate is exact: its vertices
are the uniform distributions over sets that hold the label, so max <g, w> over w is a running mean.

Shape suffixes: N rows, K classes.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, NonlinearConstraint, minimize, minimize_scalar

from mipoison.simplex import (
    keep_label,
    label_of,
    project_argmax_cone,
    project_ball,
    project_labelled_simplex,
    project_release,
    project_simplex,
    project_tangent,
)

CLASSES = [1, 2, 3, 5, 10]
ULP = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


def random_rows(n, k, *, seed, scale=1.0, dtype=torch.float64):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=dtype) * scale


def random_simplex(n, k, *, seed, sharpness=2.0, dtype=torch.float64):
    return torch.softmax(random_rows(n, k, seed=seed, scale=sharpness), dim=1).to(dtype)


def random_labels(n, k, *, seed):
    return torch.randint(k, (n,), generator=torch.Generator().manual_seed(seed))


def quadratic_program(y_K, *, label=None, simplex=False, ball=None):
    """The nearest point to y by SciPy: SLSQP, started from a feasible point."""
    k = len(y_K)
    constraints = []
    start_K = np.full(k, 1.0 / k)
    if simplex:
        constraints.append({"type": "eq", "fun": lambda z: z.sum() - 1, "jac": lambda z: np.ones(k)})
    if label is not None and k > 1:
        rows = np.delete(np.eye(k), label, axis=0)
        cone = np.eye(k)[label] - rows
        constraints.append({"type": "ineq", "fun": lambda z: cone @ z, "jac": lambda z: cone})
    if ball is not None:
        c_K, budget = ball
        start_K = c_K
        constraints.append(
            {
                "type": "ineq",
                "fun": lambda z: budget**2 - (z - c_K) @ (z - c_K),
                "jac": lambda z: 2 * (c_K - z),
            }
        )
    result = minimize(
        lambda z: 0.5 * ((z - y_K) ** 2).sum(),
        start_K,
        jac=lambda z: z - y_K,
        method="SLSQP",
        bounds=[(0, None)] * k if simplex else None,
        constraints=constraints,
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return result.x


def highest_product(g_K, label):
    """Maximum of <g, w> over the simplex, cut with the cone of `label` unless that is None."""
    if label is None:
        return g_K.max()
    others = np.sort(np.delete(g_K, label))[::-1]
    return max((g_K[label] + others[:i].sum()) / (i + 1) for i in range(len(g_K)))


def duality_gap(z_K, y_K, label, *, c_K=None, pull=0.0):
    """Zero where z is the projection of y (multiplier `pull` on the ball around c), positive elsewhere."""
    g_K = y_K - z_K - (0.0 if c_K is None else pull * (z_K - c_K))
    return highest_product(g_K, label) - g_K @ z_K


def assert_on_simplex(z_NK, tolerance):
    assert (z_NK >= 0).all()
    assert ((z_NK.double().sum(dim=1) - 1).abs() <= tolerance).all()


# Against quadratic programs


@pytest.mark.parametrize("k", CLASSES)
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_projections_match_quadratic_programs(k, scale):
    n = 8
    y_NK = random_rows(n, k, seed=k, scale=scale)
    label_N = random_labels(n, k, seed=k)
    simplex_NK = project_simplex(y_NK).numpy()
    cone_NK = project_argmax_cone(y_NK, label_N).numpy()
    both_NK = project_labelled_simplex(y_NK, label_N).numpy()
    for i in range(n):
        y_K, label = y_NK[i].numpy(), int(label_N[i])
        np.testing.assert_allclose(simplex_NK[i], quadratic_program(y_K, simplex=True), atol=2e-6)
        np.testing.assert_allclose(cone_NK[i], quadratic_program(y_K, label=label), atol=2e-6)
        np.testing.assert_allclose(both_NK[i], quadratic_program(y_K, label=label, simplex=True), atol=2e-6)


@pytest.mark.parametrize("k", CLASSES)
@pytest.mark.parametrize("budget", [0.02, 0.3, 0.8])
@pytest.mark.parametrize("keep", [True, False])
def test_release_matches_quadratic_program(k, budget, keep):
    n = 6
    c_NK = random_simplex(n, k, seed=k)
    y_NK = c_NK + random_rows(n, k, seed=k + 1)
    z_NK = project_release(y_NK, c_NK, budget, keep_label=keep).numpy()
    for i in range(n):
        c_K = c_NK[i].numpy()
        label = int(c_K.argmax()) if keep else None
        want_K = quadratic_program(y_NK[i].numpy(), label=label, simplex=True, ball=(c_K, budget))
        np.testing.assert_allclose(z_NK[i], want_K, atol=5e-6)


def test_release_matches_interior_point_method():
    """A second solver of another family, for the case that all constraints bind."""
    c_K = np.array([0.4, 0.38, 0.2, 0.02])
    y_K = np.array([0.0, 0.9, 0.6, -0.5])
    cone = np.eye(4)[0] - np.eye(4)[1:]
    want = minimize(
        lambda z: ((z - y_K) ** 2).sum(),
        c_K,
        jac=lambda z: 2 * (z - y_K),
        hess=lambda z: 2 * np.eye(4),
        method="trust-constr",
        constraints=[
            LinearConstraint(np.ones(4), 1, 1),
            LinearConstraint(np.vstack([np.eye(4), cone]), 0, np.inf),
            NonlinearConstraint(
                lambda z: ((z - c_K) ** 2).sum(),
                -np.inf,
                0.01,
                jac=lambda z: 2 * (z - c_K),
                hess=lambda z, v: 2 * v[0] * np.eye(4),
            ),
        ],
        options={"gtol": 1e-10, "xtol": 1e-12, "barrier_tol": 1e-12},
    ).x
    z_NK = project_release(torch.from_numpy(y_K)[None], torch.from_numpy(c_K)[None], 0.1)
    np.testing.assert_allclose(z_NK[0].numpy(), want, atol=3e-5)  # its barrier keeps it off the faces
    assert z_NK[0, 3] == 0  # the case is the one meant: a face, the cone and the ball all bind
    assert abs(z_NK[0, 0] - z_NK[0, 1]) < 1e-12
    assert abs(float((z_NK[0] - torch.tensor(c_K)).norm()) - 0.1) < 1e-12


# Certificates of optimality, for any number of classes


@pytest.mark.parametrize("k", [*CLASSES, 1000])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_labelled_simplex_has_no_duality_gap(k, scale):
    y_NK = random_rows(20, k, seed=k, scale=scale)
    label_N = random_labels(20, k, seed=k)
    plain_NK, z_NK = project_simplex(y_NK), project_labelled_simplex(y_NK, label_N)
    assert_on_simplex(plain_NK, 1e-13)
    assert_on_simplex(z_NK, 1e-13)
    assert (z_NK.gather(1, label_N[:, None]) >= z_NK).all()
    for i in range(20):
        y_K = y_NK[i].numpy()
        assert duality_gap(plain_NK[i].numpy(), y_K, None) <= 1e-12 * max(scale, 1)
        assert duality_gap(z_NK[i].numpy(), y_K, int(label_N[i])) <= 1e-12 * max(scale, 1)


@pytest.mark.parametrize("k", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("keep", [True, False])
def test_release_has_no_duality_gap(k, scale, keep):
    n = 6
    c_NK = random_simplex(n, k, seed=k)
    y_NK = c_NK + random_rows(n, k, seed=k + 1, scale=scale)
    free_NK = project_labelled_simplex(y_NK, label_of(c_NK)) if keep else project_simplex(y_NK)
    reach_N = (free_NK - c_NK).norm(dim=1)
    budget_N = reach_N * torch.linspace(0.05, 1.2, n, dtype=torch.float64)
    z_NK = project_release(y_NK, c_NK, budget_N, keep_label=keep)
    assert_on_simplex(z_NK, 1e-13)
    assert ((z_NK - c_NK).norm(dim=1) <= budget_N + 1e-12).all()
    torch.testing.assert_close(z_NK[-1], free_NK[-1], rtol=0, atol=1e-15)  # the ball does not bind
    for i in range(n):
        z_K, y_K, c_K = z_NK[i].numpy(), y_NK[i].numpy(), c_NK[i].numpy()
        label = int(c_K.argmax()) if keep else None

        def gap(log_pull, z_K=z_K, y_K=y_K, c_K=c_K, label=label):
            return duality_gap(z_K, y_K, label, c_K=c_K, pull=float(np.exp(log_pull)))

        # Convex in the multiplier; at the right one it vanishes, unless z is not the projection.
        best = minimize_scalar(gap, bounds=(-40, 20), method="bounded", options={"xatol": 1e-12}).fun
        start = duality_gap(c_K, y_K, label)
        assert min(best, gap(-np.inf)) <= 1e-6 * start, (best, start)


@pytest.mark.parametrize("k", [3, 1000])
def test_release_satisfies_variational_inequality(k):
    n, budget = 10, 0.05
    c_NK = random_simplex(n, k, seed=k)
    y_NK = c_NK + random_rows(n, k, seed=k + 1, scale=0.5)
    z_NK = project_release(y_NK, c_NK, budget)
    for seed in range(100):
        point_NK = project_labelled_simplex(
            z_NK + random_rows(n, k, seed=seed, scale=10.0 ** (seed % 5 - 4)), label_of(c_NK)
        )
        reach_N1 = (point_NK - c_NK).norm(dim=1, keepdim=True)
        w_NK = c_NK + (point_NK - c_NK) * (budget / reach_N1).clamp(max=1)
        assert (((y_NK - z_NK) * (w_NK - z_NK)).sum(dim=1) <= 1e-12).all()


def test_ball_and_tangent_against_closed_forms():
    v_NK = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(project_ball(v_NK, 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    per_row_NK = project_ball(v_NK, torch.tensor([10.0, 0.25, 0.0]))
    torch.testing.assert_close(per_row_NK, torch.tensor([[3.0, 4.0], [0.15, 0.2], [0.0, 0.0]]))
    assert project_ball(v_NK, 0).abs().max() == 0
    huge_NK = project_ball(torch.tensor([[3e200, 4e200]], dtype=torch.float64), 5.0)
    torch.testing.assert_close(huge_NK, torch.tensor([[3.0, 4.0]], dtype=torch.float64))

    k = 7
    v_NK = random_rows(5, k, seed=0)
    matrix_KK = torch.eye(k, dtype=torch.float64) - torch.ones(k, k, dtype=torch.float64) / k
    torch.testing.assert_close(project_tangent(v_NK), v_NK @ matrix_KK)


# Properties


@pytest.mark.parametrize("k", [1, 2, 3, 10, 100])
def test_projections_are_idempotent_and_do_not_expand(k):
    n = 200
    a_NK = random_rows(n, k, seed=1)
    b_NK = a_NK + random_rows(n, k, seed=2, scale=0.3)
    label_N = random_labels(n, k, seed=3)
    c_NK = random_simplex(n, k, seed=4)
    for project in [
        project_tangent,
        lambda v: project_ball(v, 0.5),
        project_simplex,
        lambda v: project_argmax_cone(v, label_N),
        lambda v: project_labelled_simplex(v, label_N),
        lambda v: project_release(v, c_NK, 0.3),
        lambda v: project_release(v, c_NK, 0.3, keep_label=False),
    ]:
        pa_NK, pb_NK = project(a_NK), project(b_NK)
        torch.testing.assert_close(project(pa_NK), pa_NK, rtol=0, atol=1e-12)
        assert ((pa_NK - pb_NK).norm(dim=1) <= (a_NK - b_NK).norm(dim=1) + 1e-12).all()


def adversarial_clean(k, seed):
    """Float32 rows that a label guard can get wrong: ties, one-ulp ties, uniform, one-hot, denormal."""
    sharpness = (1e-7, 0.1, 2.0, 30.0)
    soft_NK = torch.cat([random_simplex(60, k, seed=seed, sharpness=s) for s in sharpness]).float()
    uniform_NK = torch.full((1, k), 1.0 / k)
    rows = [soft_NK, uniform_NK, torch.eye(k)]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(60):
        row_K = torch.zeros(k)
        tied = int(torch.randint(1, k + 1, (1,), generator=generator))
        row_K[torch.randperm(k, generator=generator)[:tied]] = 1.0 / tied
        rows.append(row_K[None])
        near_K = row_K.clone()  # one of the tied entries an ulp up
        near_K[near_K.argmax()] = torch.nextafter(near_K.max(), torch.tensor(2.0))
        rows.append(near_K[None])
        tiny_K = row_K.clone()
        tiny_K[tiny_K == 0] = 1e-45
        rows.append(tiny_K[None])
    return torch.cat(rows)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 10, 100])
@pytest.mark.parametrize("budget", [1e-30, 1e-8, 6e-8, 1e-4, 0.1, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e30])
def test_label_kept_for_adversarial_float32(k, budget, scale):
    c_NK = adversarial_clean(k, seed=k)
    n = len(c_NK)
    push_NK = random_rows(n, k, seed=k + 7, scale=scale, dtype=torch.float32)
    second_NK = torch.zeros_like(c_NK).scatter(1, label_of(-c_NK)[:, None], scale)  # favours the least entry
    for y_NK in (c_NK + push_NK, c_NK + second_NK, -scale * c_NK, torch.full_like(c_NK, scale), c_NK):
        z_NK = project_release(y_NK, c_NK, budget)
        assert z_NK.dtype == torch.float32
        # NumPy takes the first maximum too, and shares no code.
        np.testing.assert_array_equal(z_NK.numpy().argmax(axis=1), c_NK.numpy().argmax(axis=1))
        ties_N = (z_NK == z_NK.amax(dim=1, keepdim=True)).sum(dim=1) > 1
        assert torch.equal(z_NK[ties_N], c_NK[ties_N])
        same_N = (z_NK == c_NK).all(dim=1)
        assert_on_simplex(z_NK[~same_N], 2 * ULP[torch.float32])
        miss_N = (c_NK.double().sum(dim=1) - 1).abs()  # bounds how far the clean row misses the simplex
        distance_N = (z_NK.double() - c_NK.double()).norm(dim=1)
        assert (distance_N <= budget + 2 * ULP[torch.float32] + miss_N).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [2, 10, 1000])
def test_binding_budget_is_used_up(dtype, k):
    c_NK = (0.5 * random_simplex(50, k, seed=k) + 0.5 / k).to(dtype)
    y_NK = random_rows(50, k, seed=k + 1, scale=100.0, dtype=dtype)
    for budget in (1e-3, 0.05):
        z_NK = project_release(y_NK, c_NK, budget, keep_label=False)
        distance_N = (z_NK.double() - c_NK.double()).norm(dim=1)
        assert ((distance_N - budget).abs() <= max(2 * ULP[dtype], 1e-12)).all()


def test_guard_is_needed_and_repairs():
    """Without it the cone ties the label with an earlier entry; with it the label stays alone on top."""
    c_NK = torch.tensor([[0.3, 0.4, 0.3]])
    y_NK = torch.tensor([[0.9, 0.1, 0.0]])
    exact_NK = project_labelled_simplex(y_NK.double(), label_of(c_NK)).float()
    assert label_of(exact_NK).item() == 0
    z_NK = keep_label(exact_NK, c_NK)
    assert z_NK[0, 0] == torch.nextafter(z_NK[0, 1], torch.tensor(0.0))
    assert torch.equal(z_NK[:, 1:], exact_NK[:, 1:])
    tied_NK = torch.tensor([[0.5, 0.5, 0.0]])
    assert torch.equal(keep_label(tied_NK, tied_NK), tied_NK)
    later_NK = keep_label(torch.tensor([[0.4, 0.4, 0.2]]), torch.tensor([[0.6, 0.3, 0.1]]))
    assert later_NK[0, 1] < later_NK[0, 0]  # strict, so any tie rule gives the label


def test_label_can_flip_without_the_cone():
    c_NK, y_NK = torch.tensor([[0.6, 0.4]]), torch.tensor([[0.0, 1.0]])
    assert label_of(project_release(y_NK, c_NK, 0.5, keep_label=False)).item() == 1
    torch.testing.assert_close(project_release(y_NK, c_NK, 0.5), torch.tensor([[0.5, 0.5]]))


def test_label_is_the_first_maximum():
    c_NK = torch.tensor([[0.2, 0.4, 0.4], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])
    assert label_of(c_NK).tolist() == [1, 0, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_budget_returns_the_clean_row(dtype):
    c_NK = random_simplex(100, 10, seed=0, dtype=dtype)
    y_NK = random_rows(100, 10, seed=1, dtype=dtype)
    z_NK = project_release(y_NK, c_NK, 0.0)
    assert torch.equal(z_NK, c_NK)
    assert z_NK.data_ptr() != c_NK.data_ptr()
    budget_N = torch.zeros(100)
    budget_N[::2] = 0.1
    mixed_NK = project_release(y_NK, c_NK, budget_N)
    assert torch.equal(mixed_NK[1::2], c_NK[1::2])
    torch.testing.assert_close(mixed_NK[::2], project_release(y_NK, c_NK, 0.1)[::2], rtol=0, atol=1e-7)


def test_rows_do_not_affect_each_other():
    c_NK = random_simplex(30, 10, seed=0)
    y_NK = random_rows(30, 10, seed=1)
    whole_NK = project_release(y_NK, c_NK, 0.2)
    alone_NK = torch.cat([project_release(y_NK[i : i + 1], c_NK[i : i + 1], 0.2) for i in range(30)])
    torch.testing.assert_close(whole_NK, alone_NK, rtol=0, atol=1e-14)
    assert torch.equal(whole_NK == 0, alone_NK == 0)  # no 1e-18 where the answer is 0
    assert (whole_NK == 0).any()
    assert whole_NK[whole_NK > 0].min() > 1e-12


def test_large_and_shifted_wishes():
    """A common offset changes nothing, and 1e30 leaves no room for the 1 that entries must sum to."""
    y_NK = random_rows(20, 5, seed=0)
    c_NK = random_simplex(20, 5, seed=1)
    shifted_NK = project_release(y_NK + 1e6, c_NK, 0.1)
    torch.testing.assert_close(shifted_NK, project_release(y_NK, c_NK, 0.1), rtol=0, atol=1e-8)
    torch.testing.assert_close(
        project_simplex(torch.tensor([[1e30, 1e30, -1e30], [1e300, 0.0, 0.0]], dtype=torch.float64)),
        torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64),
    )
    far_NK = torch.tensor([[-1e300, 1e300, 0.0]], dtype=torch.float64)
    c_NK = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    # By hand: along (-2, 1, 1) / 3 at most to the tie of the first two, then along the tie.
    z_NK = project_release(far_NK, c_NK, 0.05, keep_label=False)
    torch.testing.assert_close(
        z_NK, c_NK + 0.05 / 2**0.5 * torch.tensor([[-1.0, 1.0, 0.0]], dtype=torch.float64)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("k", [1, 6])
def test_shapes_dtypes_and_untouched_inputs(dtype, n, k):
    c_NK = random_simplex(n, k, seed=0, dtype=dtype)
    y_NK = random_rows(n, k, seed=1, dtype=dtype)
    label_N, budget_N = label_of(c_NK), torch.full((n,), 0.1, dtype=dtype)
    inputs = [c_NK, y_NK, label_N, budget_N]
    before = [t.clone() for t in inputs]
    for out_NK in [
        project_tangent(y_NK),
        project_ball(y_NK, budget_N),
        project_simplex(y_NK),
        project_argmax_cone(y_NK, label_N),
        project_labelled_simplex(y_NK, label_N),
        project_release(y_NK, c_NK, budget_N),
        project_release(y_NK, c_NK, 0.1, keep_label=False),
        keep_label(c_NK, c_NK),
    ]:
        assert out_NK.shape == (n, k)
        assert out_NK.dtype == dtype
        out_NK.fill_(-1.0)  # a view of an input would show
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_release_takes_the_dtype_of_the_clean_rows():
    c_NK = random_simplex(3, 4, seed=0, dtype=torch.float32)
    assert project_release(random_rows(3, 4, seed=1), c_NK, 0.1).dtype == torch.float32


def test_clean_row_within_tolerance_counts_as_normalised():
    c_NK = torch.tensor([[0.6005, 0.4]])
    z_NK = project_release(torch.tensor([[0.0, 1.0]]), c_NK, 0.05, keep_label=False)
    assert_on_simplex(z_NK, 2 * ULP[torch.float32])
    torch.testing.assert_close((z_NK - c_NK / c_NK.sum()).norm(), torch.tensor(0.05))
    below_NK = torch.tensor([[1.0005, -0.0005, 0.0]])
    z_NK = project_release(torch.tensor([[0.0, 0.0, 1.0]]), below_NK, 1e-4)
    assert_on_simplex(z_NK, 2 * ULP[torch.float32])
    torch.testing.assert_close(
        (z_NK - torch.tensor([[1.0, 0.0, 0.0]])).norm(), torch.tensor(1e-4), rtol=2e-3, atol=0
    )


@pytest.mark.parametrize("budget", [1e-8, 0.1, 2.0])
def test_tail_survives_a_float32_sum(budget):
    """Float32 rows do not sum to 1 exactly; a log attacker must not see a tail raised or cut for that."""
    c_NK = torch.softmax(random_rows(200, 10, seed=0, scale=15.0, dtype=torch.float32), dim=1)
    assert (c_NK.double().sum(dim=1) != 1).any()
    assert (c_NK < 1e-12).any()
    z_NK = project_release(c_NK, c_NK, budget)
    torch.testing.assert_close(z_NK, c_NK, rtol=3e-7, atol=1e-15)
