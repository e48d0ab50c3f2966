"""Simulated learning curves: what their noise is, and that the script's coverage is near what it aims at."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from study.bench.extrapolation import Arguments, coverage, main, simulated

SIZES = np.array([45.0, 90.0, 180.0, 360.0])


def test_the_noise_is_nested_and_falls_with_the_size() -> None:
    """Without images' levels: deviation n^-1/2, and between n and 2n the correlation of nested means."""
    rng = np.random.default_rng(0)
    mean = np.array([simulated(rng, SIZES, (0.03, 0.0, 1.0), 0.01, 2000).mean(axis=1) for _ in range(400)])
    log = np.log(mean)
    deviation = np.sqrt(np.maximum(log.var(axis=0) - 1 / 4 / 2000, 0))  # less that of the images' levels
    assert deviation == pytest.approx(0.01 * np.sqrt(360 / SIZES), rel=0.2)
    shared = np.cov(log.T) - 1 / 4 / 2000
    correlation = shared[0, 1] / np.sqrt(shared[0, 0] * shared[1, 1])
    assert correlation == pytest.approx(np.sqrt(1 / 2), abs=0.12)


def test_coverage_is_near_what_is_aimed_at() -> None:
    few = Arguments(studies=24, images=60, resamples=60)
    found = coverage((0.03, 0.3, 0.8), 0.013, 3, few)
    assert found.limit >= 0.8
    assert found.gain >= 0.8
    assert found.ratio == pytest.approx(1, abs=0.1)
    wide = coverage((0.03, 0.3, 0.8), 0.05, 3, dataclasses.replace(few, studies=8))
    assert wide.width > found.width


def test_the_script_prints_a_line_for_each_law(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--studies", "1", "--images", "10", "--resamples", "2", "--seeds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert all("covers the limit" in line for line in lines)
