"""Measurements: utility and leakage of released vectors, validity checks on records, statistics over seeds.

The functions take vectors, images or records; they do not know models, attackers or defenses.
"""

from mipoison.metrics.checks import CHECKS, Check, CheckContext, apply_checks, checks_table
from mipoison.metrics.leakage import (
    defense_curve,
    excess_leakage,
    gamma_inversion,
    mean_image_error,
    reconstruction_errors,
    reconstruction_skill,
    share_recognised,
    ssim,
)
from mipoison.metrics.statistics import Interval, PairedDifference, mean_interval, paired_difference
from mipoison.metrics.utility import (
    accuracy,
    confidence_distortion,
    expected_calibration_error,
    kl_divergence,
    label_agreement,
    label_recovery,
    rank_correlation,
    utility_metrics,
)

__all__ = [
    "CHECKS",
    "Check",
    "CheckContext",
    "Interval",
    "PairedDifference",
    "accuracy",
    "apply_checks",
    "checks_table",
    "confidence_distortion",
    "defense_curve",
    "excess_leakage",
    "expected_calibration_error",
    "gamma_inversion",
    "kl_divergence",
    "label_agreement",
    "label_recovery",
    "mean_image_error",
    "mean_interval",
    "paired_difference",
    "rank_correlation",
    "reconstruction_errors",
    "reconstruction_skill",
    "share_recognised",
    "ssim",
    "utility_metrics",
]
