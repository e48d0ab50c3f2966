"""The amortised defense as one exported program: a forward pass from clean to released vectors.

Written with ``torch.export``: the file runs without this package (``torch.export.load``).

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
from mipoison.simplex import project_release_inside
from mipoison.victims.ask import undone


class AmortisedForward(nn.Module):
    """``(c (N, K), noise (N, Z)) -> c' (N, K)``, float32; one pass, the same operations for every input.

    Equal to ``LPAAmortised.protect`` for the same noise: the generator's step has the budget's length, so
    that the projection needs no search (see ``project_release_inside``).

    Args:
        generator: trained, in eval mode. budget: l2 bound, above 0.
    """

    def __init__(self, generator: GeneratorNet, budget: float) -> None:
        super().__init__()
        if not budget > 0:
            raise ValueError(f"budget = {budget}: must be above 0 (with 0 the clean vector is released)")
        self.generator, self.budget = generator, budget

    def forward(self, c_NK: Tensor, noise_NZ: Tensor) -> Tensor:
        """Released vectors; zeros for the noise give the generator's mean."""
        d_NK = self.generator.direction(c_NK, noise_NZ).double()
        return project_release_inside(c_NK.double() + self.budget * d_NK, c_NK)


@undone()
def export_amortised(defense: LPAAmortised, path: str | Path | None = None) -> torch.export.ExportedProgram:
    """Export a fitted amortised defense, on the device it was fitted on; any number of queries from 1 on.

    Args:
        defense: fitted, with a budget above 0.
        path: where to save the program (``.pt2``), None: nowhere.

    Returns:
        The program; ``program.module()(c, noise)`` releases vectors. ``noise`` is standard normal, keyed by
        query and secret in a service (``QueryRandomness.normal(latent, "amortised")``).

    Raises:
        ValueError: a budget of 0, for which there is nothing to export.
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
