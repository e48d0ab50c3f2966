"""What a study shows, measures afterwards, and copies for other tools. Its records do not depend on these."""

from __future__ import annotations

from dataclasses import dataclass

from mipoison.metrics.constants import MARGIN


@dataclass(frozen=True, kw_only=True)
class Display:
    """What is shown while the study runs."""

    dashboard: bool = True
    """start Ray's dashboard with a local Ray, on loopback"""
    verbose: bool = False
    """show Ray's and the workers' logs"""
    tables: bool = False
    """print all tables of report.md at the end, not the summary alone"""
    margin: float = MARGIN
    """accepted excess leakage, a share of label-only's error: what is certified or safe stays within it"""


@dataclass(frozen=True, kw_only=True)
class Afterwards:
    """What is measured after the search, beside the records."""

    learning_curves: bool = True
    """at the end, extrapolate the error of the attacker kernel over the number of its images, for the
    frontier and the anchors"""


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Copies of the study for other tools."""

    tensorboard: bool = False
    """keep a TensorBoard log of every trial in <storage>/<name>/tensorboard"""
    mlflow: str | None = None
    """log every trial to this MLflow store too (a server, or sqlite:///file); needs the extra mlflow"""
