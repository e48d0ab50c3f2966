"""What belongs to the whole process is the caller's again afterwards."""

from __future__ import annotations

import random

import numpy as np
import torch

from mipoison.process import callers_defaults, own_context, reseeded, restored_state


def test_the_callers_context_is_undone() -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        with own_context():
            made = torch.ones(2, 2, requires_grad=True)
            product = made @ made
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert (product.dtype, product.device.type, product.requires_grad) == (torch.float32, "cpu", True)
    assert not product.is_inference()


def test_the_callers_defaults_are_known_inside() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with own_context():
            assert torch.get_default_dtype() == torch.float32
            assert callers_defaults() == (torch.float64, torch.device("cpu"))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)


def numbers() -> tuple[float, float, float]:
    """The next number of each global generator."""
    return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002


def test_what_a_users_code_changes_is_restored() -> None:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    with reseeded(5, torch.device("cpu")):
        expected = numbers()
    with reseeded(5, torch.device("cpu")):
        with restored_state(None):
            numbers()
            torch.set_num_threads(threads + 1)
            torch.set_default_dtype(torch.float64)
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
        assert numbers() == expected


def test_reseeded_numbers_follow_the_seed_and_leave_no_trace() -> None:
    state = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        with reseeded(seed, torch.device("cpu")):
            drawn.append(numbers())
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))
    assert torch.equal(torch.get_rng_state(), state)
