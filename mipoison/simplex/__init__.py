"""The probability simplex: labels, and projections that a defense may release.

See :mod:`mipoison.simplex.projections` for the conventions that hold everywhere in the project.
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
