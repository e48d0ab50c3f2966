"""Checks of the projections' arguments; each raises ValueError naming argument, value and bound.

Shape suffixes: N rows, K classes.
"""

import torch
from torch import Tensor

SIMPLEX_TOLERANCE = 1e-3
"""How far the sum and the entries of a clean vector may miss the simplex; a softmax in float16 stays
within."""
MAX_SIZE = 1e300
"""Largest absolute value of an entry. Rows are summed in float64, where larger entries could overflow."""


def check_shape(name: str, v_NK: Tensor) -> None:
    """Refuse tensors other than (N, K) with K at least 1, in float32 or float64."""
    if v_NK.ndim != 2 or v_NK.shape[1] < 1:
        raise ValueError(f"{name} must have shape (N, K) with K at least 1, got {tuple(v_NK.shape)}")
    if v_NK.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {v_NK.dtype}")


def check_finite(name: str, v_NK: Tensor) -> None:
    """Refuse NaN, infinities and entries larger than MAX_SIZE; also checks the shape."""
    check_shape(name, v_NK)
    bad_NK = ~(v_NK.abs() <= MAX_SIZE)  # written so that NaN is bad
    if bad_NK.any():
        row = int(bad_NK.nonzero()[0, 0])
        value = v_NK[row][bad_NK[row]][0].item()
        raise ValueError(f"{name} must be finite and at most {MAX_SIZE:g} in size, got {value} in row {row}")


def check_same_shape(z_NK: Tensor, c_NK: Tensor) -> None:
    """Refuse two tensors of different shapes."""
    if z_NK.shape != c_NK.shape:
        raise ValueError(f"both tensors must have one shape, got {tuple(z_NK.shape)} and {tuple(c_NK.shape)}")


def check_labels(label_N: Tensor, y_NK: Tensor) -> None:
    """Refuse labels that are not int64, one for each row, in 0..K-1."""
    if label_N.dtype != torch.int64 or label_N.shape != y_NK.shape[:1]:
        found = f"{label_N.dtype} of shape {tuple(label_N.shape)}"
        raise ValueError(f"label_N must be torch.int64 of shape ({len(y_NK)},), got {found}")
    bad_N = (label_N < 0) | (label_N >= y_NK.shape[1])
    if bad_N.any():
        raise ValueError(f"label_N must lie in 0..{y_NK.shape[1] - 1}, got {label_N[bad_N][0].item()}")


def check_simplex(c_NK: Tensor) -> None:
    """Refuse rows that miss the simplex by more than SIMPLEX_TOLERANCE."""
    sum_N = c_NK.double().sum(dim=1)
    low_N = c_NK.amin(dim=1)
    bad_N = ((sum_N - 1.0).abs() > SIMPLEX_TOLERANCE) | (low_N < -SIMPLEX_TOLERANCE)
    if bad_N.any():
        row = int(bad_N.nonzero()[0])
        found = f"sum {sum_N[row].item():.6g} and minimum {low_N[row].item():.6g} in row {row}"
        raise ValueError(f"c_NK must lie on the simplex within {SIMPLEX_TOLERANCE:g}, got {found}")


def budget_column(budget: float | Tensor, like_NK: Tensor) -> Tensor:
    """A budget, one number or one for each row, as a float64 column (N, 1); refuses negative and infinite
    ones."""
    budget_N = torch.as_tensor(budget, dtype=torch.float64, device=like_NK.device)
    if budget_N.ndim > 0 and budget_N.shape != like_NK.shape[:1]:
        shape = tuple(budget_N.shape)
        raise ValueError(f"budget must be a number or have shape ({len(like_NK)},), got {shape}")
    bad_N = ~(torch.isfinite(budget_N) & (budget_N >= 0))
    if bad_N.any():
        raise ValueError(f"budget must be finite and at least 0, got {budget_N[bad_N].flatten()[0].item()}")
    return budget_N.detach().expand(len(like_NK))[:, None]
