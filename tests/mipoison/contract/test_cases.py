"""What the checks share: comparisons that can fail, and how an error of other code becomes a line."""

from __future__ import annotations

import pytest
import torch

from mipoison.contract.cases import (
    Broken,
    Result,
    require_close,
    require_equal,
    require_label,
    require_released,
    run_checks,
)

C = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]])


@pytest.mark.parametrize(
    ("z", "said"),
    [
        (C[:, :2], "shape"),
        (C.double(), "float64"),
        (C.clone().requires_grad_(True), "gradients"),
        (torch.tensor([[0.8, 0.3, -0.1], [0.1, 0.5, 0.4]]), "at least 0"),
        (C * 1.001, "sums to 1"),
        (C * float("nan"), "not finite"),
    ],
)
def test_rows_off_the_simplex_are_named(z: torch.Tensor, said: str) -> None:
    require_released(C.clone(), C)
    with pytest.raises(Broken, match=said):
        require_released(z, C)


def test_labels_and_differences_are_named() -> None:
    require_label(C, C)
    with pytest.raises(Broken, match="2 of 2 labels changed"):
        require_label(C.roll(1, 1), C)
    require_equal(C, C.clone(), "x")
    with pytest.raises(Broken, match="other"):
        require_equal(C, C + 1e-7, "other")
    require_close(C, C + 1e-7, "far")
    with pytest.raises(Broken, match="far"):
        require_close(C, C + 1e-3, "far")


def test_what_a_check_raises_is_a_line() -> None:
    def fine(case: int) -> None:
        """It is fine."""

    def breaks(case: int) -> None:
        """It is
        kept."""
        raise Broken("it is not")

    def raises(case: int) -> None:
        """It runs."""
        raise RuntimeError("two\nlines")

    assert run_checks(1, (fine, breaks, raises)) == [
        Result("fine", "It is fine", None),
        Result("breaks", "It is kept", "it is not"),
        Result("raises", "It runs", "raised RuntimeError: two lines"),
    ]
