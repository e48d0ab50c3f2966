"""On a cluster that loses a node every few seconds, a study still ends with every record exactly once."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from simulated import SLACK, Driver, Simulated, arguments, assert_whole, private_environment, trials_done

SETTING = {"defenses": ("noise",), "limit": 60, "victim_steps": 10, "decoder_steps": 5, "sampler": "random"}
"""The budget of ``noise`` is continuous, so that the search never runs out of settings."""


def storm(tmp_path: Path, trials: int, nodes: int, every_s: float, concurrent: int, limit_s: float) -> None:
    """Kill and replace the oldest node repeatedly while the study runs; print what happened."""
    changes = SETTING | {"trials": trials, "concurrent": concurrent}
    every_s *= SLACK  # on a machine that needs 30 s to start a worker no trial would finish
    killed, began = 0, time.monotonic()
    with private_environment() as environment:
        cluster = Simulated(environment, nodes)
        try:
            driver = Driver(
                environment, [*arguments(tmp_path / "s", **changes), "--address", cluster.address]
            )
            for i in itertools.count(1):
                if driver.process.poll() is not None:
                    break
                now = time.monotonic() - began
                assert now < limit_s, f"{trials_done(tmp_path / 's')} of {trials} trials after {now:.0f} s"
                while driver.process.poll() is None and time.monotonic() - began < i * every_s:
                    time.sleep(0.1)
                if driver.process.poll() is None:
                    cluster.kill()
                    cluster.add()
                    killed += 1
            driver.finish()
            took = time.monotonic() - began
        finally:
            cluster.close()
    assert killed >= 1
    found = assert_whole(tmp_path / "s", tmp_path / "calm", trials, **SETTING)
    print(f"\n{trials} trials, {nodes} nodes, {killed} killed, {took:.0f} s, {len(found)} records")


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.timeout(580 * SLACK)
def test_four_nodes_and_one_lost_every_ten_seconds(tmp_path: Path) -> None:
    storm(tmp_path, trials=24, nodes=4, every_s=10, concurrent=2, limit_s=400 * SLACK)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3600 * SLACK)
def test_sixteen_nodes_and_one_lost_every_twenty_seconds(tmp_path: Path) -> None:
    storm(tmp_path, trials=200, nodes=16, every_s=20, concurrent=4, limit_s=3000 * SLACK)
