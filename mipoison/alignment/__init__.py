"""Gradient alignment: the target gradient, and how the cosine to it changes with the confidence vector.

``make_engine`` picks from ``ENGINES``, which all compute the same gradient in different ways; see
study/PERFORMANCE.md for what each costs.
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
