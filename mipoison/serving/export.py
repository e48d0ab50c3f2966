"""Exports the amortised defense with ``torch.export``, as one program from clean to released vectors.

The exported file runs without this package (``torch.export.load``).

Shape suffixes: N queries, K classes, Z latent units.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from mipoison.defenses.lpa_amortised import LPAAmortised
from mipoison.models.generator import GeneratorNet
from mipoison.process import own_context
from mipoison.simplex import project_release_inside


class AmortisedForward(nn.Module):
    """``(c (N, K), noise (N, Z)) -> c' (N, K)``, float32, with the same operations for every input.

    It gives what ``LPAAmortised.protect`` gives for the same noise. The generator's step has the budget's
    length, so the projection needs no search (see ``project_release_inside``) and can be exported.

    Args:
        generator: trained, in eval mode.
        budget: l2 bound, above 0.
    """

    def __init__(self, generator: GeneratorNet, budget: float) -> None:
        super().__init__()
        if not budget > 0:
            raise ValueError(f"budget = {budget}: must be above 0 (with 0 the clean vector is released)")
        self.generator, self.budget = generator, budget

    def forward(self, c_NK: Tensor, noise_NZ: Tensor) -> Tensor:
        """Released vectors; with noise of zeros, those of the generator's mean."""
        d_NK = self.generator.direction(c_NK, noise_NZ).double()
        return project_release_inside(c_NK.double() + self.budget * d_NK, c_NK)


@own_context()
def export_amortised(defense: LPAAmortised, path: str | Path | None = None) -> torch.export.ExportedProgram:
    """Export a fitted amortised defense for any number of queries, on the device it was fitted on.

    Args:
        defense: fitted, with a budget above 0.
        path: where to save the program (``.pt2``); None: it is not saved.

    Returns:
        The program; ``program.module()(c, noise)`` releases vectors. ``noise`` is standard normal. A service
        draws it with ``QueryRandomness.normal(latent, "amortised")``, keyed by query and secret.

    Raises:
        ValueError: a budget of 0, with which the clean vector is released.
    """
    module = AmortisedForward(defense.generator, defense.config.budget).eval()
    parameter = next(module.parameters())
    k, z = len(defense.generator.mean_K), defense.generator.latent
    c_NK = torch.full((2, k), 1 / k, device=parameter.device)
    noise_NZ = torch.zeros(2, z, device=parameter.device)
    n = torch.export.Dim("n", min=1, max=2**24)
    shapes = {"c_NK": {0: n}, "noise_NZ": {0: n}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.export").setLevel(logging.ERROR)
        program = torch.export.export(module, (c_NK, noise_NZ), dynamic_shapes=shapes)
    if path is not None:
        torch.export.save(program, str(path))
    return program
