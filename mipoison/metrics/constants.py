"""Constants of the measurements that settings and help texts state, to be had without numpy and torch."""

from __future__ import annotations

KL_FLOOR = 1e-12
"""Least probability inside the logarithms of :func:`~mipoison.metrics.utility.kl_divergence`."""
MARGIN = 0.02
"""Excess leakage (a share of label-only's error) that is accepted, unless somebody names another."""
