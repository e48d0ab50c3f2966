"""What the projections refuse: each error names the value and the bound."""

import pytest
import torch

from mipoison.simplex import (
    keep_label,
    project_argmax_cone,
    project_ball,
    project_labelled_simplex,
    project_release,
    project_simplex,
)
from tests.mipoison.simplex.test_projections import random_rows, random_simplex


def test_errors_name_value_and_bound():
    c_NK = random_simplex(3, 4, seed=0)
    y_NK = random_rows(3, 4, seed=1)
    for budget, shown in [(-0.5, "-0.5"), (float("nan"), "nan"), (float("inf"), "inf")]:
        for call in (lambda b: project_release(y_NK, c_NK, b), lambda b: project_ball(y_NK, b)):
            with pytest.raises(ValueError, match=f"budget must be finite and at least 0, got {shown}"):
                call(budget)
            with pytest.raises(ValueError, match=f"budget must be finite and at least 0, got {shown}"):
                call(torch.tensor([0.1, budget, 0.1]))
    with pytest.raises(ValueError, match=r"budget must be a number or have shape \(3,\), got \(2,\)"):
        project_release(y_NK, c_NK, torch.tensor([0.1, 0.1]))
    for value, shown in [(float("nan"), "nan"), (float("-inf"), "-inf"), (2e300, r"2e\+300")]:
        bad_NK = y_NK.clone()
        bad_NK[1, 2] = value
        with pytest.raises(
            ValueError, match=rf"y_NK must be finite and .* 1e\+300 in size, got {shown} in row 1"
        ):
            project_release(bad_NK, c_NK, 0.1)
    with pytest.raises(ValueError, match=r"one shape, got \(3, 4\) and \(2, 4\)"):
        project_release(y_NK, c_NK[:2], 0.1)
    with pytest.raises(ValueError, match=r"simplex within 0.001, got sum 1.1 and minimum .* in row 0"):
        project_release(y_NK, c_NK * 1.1, 0.1)
    with pytest.raises(ValueError, match=r"simplex within 0.001, got sum 1 and minimum -0.5 in row 0"):
        project_release(y_NK[:1], torch.tensor([[1.5, -0.5, 0.0, 0.0]]), 0.1)
    with pytest.raises(ValueError, match=r"label_N must lie in 0..3, got 4"):
        project_argmax_cone(y_NK, torch.tensor([0, 4, 1]))
    with pytest.raises(ValueError, match=r"label_N must be torch.int64 of shape \(3,\)"):
        project_labelled_simplex(y_NK, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"shape \(N, K\) with K at least 1, got \(3, 0\)"):
        project_simplex(torch.zeros(3, 0))
    with pytest.raises(ValueError, match=r"float32 or float64, got torch.int64"):
        project_simplex(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"above 0 at the label of c_NK, got 0.0 in row 0"):
        keep_label(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"dtype of c_NK, torch.float64, got torch.float32"):
        keep_label(c_NK.float(), c_NK)
