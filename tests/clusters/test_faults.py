"""Machines that go, processes that die: the study ends with the records that it would have had anyway."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulated import (
    Driver,
    Simulated,
    arguments,
    assert_whole,
    command_of,
    descendants,
    private_environment,
    trials_done,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(580)]

Start = Callable[..., Simulated]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    with private_environment() as environment:
        yield environment


@pytest.fixture
def cluster(environment: dict[str, str]) -> Iterator[Start]:
    started: list[Simulated] = []

    def start(nodes: int, **options: object) -> Simulated:
        started.append(Simulated(environment, nodes, **options))
        return started[-1]

    yield start
    for simulated in started:
        simulated.close()


def study(
    environment: dict[str, str], storage: Path, simulated: Simulated, *more: str, **changes: object
) -> Driver:
    return Driver(environment, [*arguments(storage, **changes), "--address", simulated.address, *more])


def test_a_node_is_lost_in_mid_trial(environment: dict[str, str], cluster: Start, tmp_path: Path) -> None:
    nodes = cluster(2)
    driver = study(environment, tmp_path / "s", nodes, trials=8)
    driver.wait_for(lambda: trials_done(tmp_path / "s") >= 2)
    nodes.kill()
    nodes.add()
    driver.finish()
    assert_whole(tmp_path / "s", tmp_path / "calm", 8)


def test_a_node_is_lost_while_the_anchors_run(
    environment: dict[str, str], cluster: Start, tmp_path: Path
) -> None:
    nodes = cluster(2)
    driver = study(environment, tmp_path / "s", nodes, trials=1, victim_steps=200)
    driver.wait_for(lambda: any((tmp_path / "s" / "artifacts").glob("*")))
    nodes.kill()
    nodes.add()
    driver.finish()
    assert_whole(tmp_path / "s", tmp_path / "calm", 1, victim_steps=200)


def test_a_node_of_a_train_run_is_lost(environment: dict[str, str], cluster: Start, tmp_path: Path) -> None:
    """Two workers on fake GPUs of two nodes; the whole group is started again."""
    nodes = cluster(2, gpus=1, cpus=2, dashboard=True)
    driver = study(
        environment,
        tmp_path / "s",
        nodes,
        trials=1,
        workers=2,
        gpus_per_worker=1,
        decoder_steps=400,
    )
    driver.wait_for(lambda: any((tmp_path / "s" / "trials").glob("t*.json")))

    def group() -> set[int]:
        return {p for p in descendants(nodes.process.pid) if "RayTrainWorker" in command_of(p)}

    before = group()
    driver.wait_for(lambda: bool(group() - before))
    time.sleep(2)  # into the trial's work
    nodes.kill()
    nodes.add()
    driver.finish()
    assert_whole(tmp_path / "s", tmp_path / "calm", 1, decoder_steps=400)


def test_the_driver_is_killed_at_ten_random_moments(
    environment: dict[str, str], cluster: Start, tmp_path: Path
) -> None:
    nodes, moments = cluster(2), random.Random(0)
    storage, kept = tmp_path / "s", {}
    for i in range(10):
        resume = ["--resume"] if (storage / "s" / "study.json").exists() else []
        driver = study(environment, storage, nodes, *resume, trials=40, decoder_steps=100)
        driver.wait_for(lambda d=driver: "study s" in d.log.read_text())  # type: ignore[misc]
        time.sleep(moments.uniform(0, 9))
        assert driver.process.poll() is None, f"{i}: done before: {driver.log.read_text()[-2000:]}"
        driver.kill()
        for name, data in kept.items():
            assert (storage / "s" / "episodes" / name).read_bytes() == data, (
                "a finished trial was written again"
            )
        kept = {p.name: p.read_bytes() for p in (storage / "s" / "episodes").glob("*.parquet")}
    done = trials_done(storage)
    assert done > 0
    trials = done + 2
    study(environment, storage, nodes, "--resume", trials=trials, decoder_steps=100).finish()
    assert_whole(storage, tmp_path / "calm", trials, decoder_steps=100)


def test_the_head_is_replaced(environment: dict[str, str], cluster: Start, tmp_path: Path) -> None:
    """All that the first cluster knew is gone; storage alone is left."""
    first = cluster(2)
    driver = study(environment, tmp_path / "s", first, trials=6)
    driver.wait_for(lambda: trials_done(tmp_path / "s") >= 2)
    first.lose()
    driver.kill()
    study(environment, tmp_path / "s", cluster(2), "--resume", trials=6).finish()
    assert_whole(tmp_path / "s", tmp_path / "calm", 6)


def test_a_worker_is_killed(environment: dict[str, str], cluster: Start, tmp_path: Path) -> None:
    nodes = cluster(2)
    driver = study(environment, tmp_path / "s", nodes, trials=6)
    driver.wait_for(lambda: trials_done(tmp_path / "s") >= 1)
    trials = [p for p in descendants(nodes.process.pid) if "ray::ImplicitFunc" in command_of(p)]
    assert trials
    os.kill(trials[0], signal.SIGKILL)
    driver.finish()
    assert_whole(tmp_path / "s", tmp_path / "calm", 6)
