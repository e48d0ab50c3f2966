"""Measurements: utility and leakage of released vectors, validity checks on records, statistics over seeds.

The functions take vectors, images or records; they do not know models, attackers or defenses. Those called
like their module (``estimated_limit``, ``identification``, ``learning_curve``) are imported from there.
Importing this package is fast, since each name below is loaded when it is first used.
"""

from __future__ import annotations

from mipoison._moved import lazily

_HOME = {  # name -> the module that defines it; type checkers read __init__.pyi
    "CHECKS": "mipoison.metrics.checks",
    "Check": "mipoison.metrics.checks",
    "CheckContext": "mipoison.metrics.checks",
    "Interval": "mipoison.metrics.statistics",
    "PairedDifference": "mipoison.metrics.statistics",
    "accuracy": "mipoison.metrics.utility",
    "apply_checks": "mipoison.metrics.checks",
    "brier_score": "mipoison.metrics.scoring",
    "checks_table": "mipoison.metrics.checks",
    "confidence_distortion": "mipoison.metrics.utility",
    "defense_curve": "mipoison.metrics.leakage",
    "excess_leakage": "mipoison.metrics.leakage",
    "expected_calibration_error": "mipoison.metrics.utility",
    "gamma_inversion": "mipoison.metrics.leakage",
    "kl_divergence": "mipoison.metrics.utility",
    "label_agreement": "mipoison.metrics.utility",
    "label_recovery": "mipoison.metrics.utility",
    "log_loss": "mipoison.metrics.scoring",
    "mean_image_error": "mipoison.metrics.leakage",
    "mean_interval": "mipoison.metrics.statistics",
    "paired_difference": "mipoison.metrics.statistics",
    "rank_correlation": "mipoison.metrics.utility",
    "reconstruction_errors": "mipoison.metrics.leakage",
    "reconstruction_skill": "mipoison.metrics.leakage",
    "share_recognised": "mipoison.metrics.leakage",
    "ssim": "mipoison.metrics.leakage",
    "tail_rank_correlation": "mipoison.metrics.ranking",
    "top_agreement": "mipoison.metrics.ranking",
    "utility_metrics": "mipoison.metrics.utility",
}

__all__ = [*_HOME]

__getattr__, __dir__ = lazily(globals(), _HOME)
