"""What belongs to the whole process is the caller's again afterwards."""

from __future__ import annotations

import torch

from mipoison.victims.ask import undone


def test_the_callers_context_is_undone() -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        with undone():
            made = torch.ones(2, 2, requires_grad=True)
            product = made @ made
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert (product.dtype, product.device.type, product.requires_grad) == (torch.float32, "cpu", True)
    assert not product.is_inference()
