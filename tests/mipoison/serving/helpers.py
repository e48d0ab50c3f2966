"""What the tests of units share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from mipoison.defenses import DEFENSES, retraining

SECRET = b"sixteen bytes or more"


UNITS = [name for name in DEFENSES if name not in retraining()]


def rounding(name: str) -> float:
    """What the last bits of a product, which batch size and addresses change, may grow to in the rounds.

    A hundredth of the budget; AdvExa steps along signs, which a last bit turns.
    """
    return 5e-3 if name == "advexa" else 1e-4


# --------------------------------------------------------------- contexts, arguments, the wrapped module


@contextlib.contextmanager
def served() -> Iterator[None]:
    """As models are served: no gradients, inference tensors, autocast."""
    with torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        yield
