"""Gradient alignment, the objective of data poisoning after Witches' Brew (Geiping et al. 2021).

A defense perturbs a confidence vector so that an inversion model trained on it gets a gradient that points in
the direction of a target gradient, which makes that model worse. This package computes the target, and the
gradient of the alignment in the confidence vector. ``make_engine`` picks one of ``ENGINES``, which compute
the same gradient in different ways; study/PERFORMANCE.md says what each costs.
"""

from mipoison.alignment.double_backward import align_batch, align_samples, align_samples_loop, angle_samples
from mipoison.alignment.engines import ENGINES, Engine, EngineName, default_engine, make_engine
from mipoison.alignment.gradients import (
    OBJECTIVES,
    Aligned,
    norm_of,
    parameter_gradient,
    parameters_of,
    target_gradient,
)

__all__ = [
    "ENGINES",
    "OBJECTIVES",
    "Aligned",
    "Engine",
    "EngineName",
    "align_batch",
    "align_samples",
    "align_samples_loop",
    "angle_samples",
    "default_engine",
    "make_engine",
    "norm_of",
    "parameter_gradient",
    "parameters_of",
    "target_gradient",
]
