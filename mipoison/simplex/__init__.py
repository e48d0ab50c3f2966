"""The probability simplex: labels of confidence vectors, and projections onto what a defense may release.

:mod:`mipoison.simplex.projections` states the conventions for labels and distortion of the whole project.
"""

from mipoison.simplex.checks import MAX_SIZE, SIMPLEX_TOLERANCE
from mipoison.simplex.projections import (
    keep_label,
    label_of,
    project_argmax_cone,
    project_ball,
    project_labelled_simplex,
    project_release,
    project_release_inside,
    project_simplex,
    project_tangent,
)

__all__ = [
    "MAX_SIZE",
    "SIMPLEX_TOLERANCE",
    "keep_label",
    "label_of",
    "project_argmax_cone",
    "project_ball",
    "project_labelled_simplex",
    "project_release",
    "project_release_inside",
    "project_simplex",
    "project_tangent",
]
