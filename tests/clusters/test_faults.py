"""When machines or processes are lost, the study still ends with the records of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulated import (
    SETTINGS,
    SLACK,
    Driver,
    Simulated,
    arguments,
    assert_whole,
    command_of,
    descendants,
    private_environment,
    trials_done,
)

from mipoison.storage.files import Storage
from study.records.store import Records

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(580 * SLACK)]

Start = Callable[..., Simulated]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with private_environment() as environment:
        yield environment


@pytest.fixture(scope="module")
def nodes(environment: dict[str, str]) -> Iterator[Simulated]:
    """A cluster of two nodes with one CPU each; tests share it and replace the nodes that they kill."""
    simulated = Simulated(environment, 2)
    yield simulated
    simulated.close()


@pytest.fixture
def cluster() -> Iterator[Start]:
    """Starts clusters for one test, each in its own environment."""
    started: list[Simulated] = []
    with private_environment() as environment:

        def start(nodes: int, more: dict[str, str] | None = None, **options: object) -> Simulated:
            started.append(Simulated(environment | (more or {}), nodes, **options))
            return started[-1]

        yield start
        for simulated in started:
            simulated.close()


def study(simulated: Simulated, storage: Path, *more: str, **changes: object) -> Driver:
    """Start a study on a simulated cluster, in that cluster's environment."""
    command = [*arguments(storage, **changes), "--address", simulated.address, *more]
    return Driver(simulated.environment, command)


def running(simulated: Simulated, title: str) -> list[int]:
    """The cluster's processes whose title (set by Ray) says that they run something."""
    return [p for p in descendants(simulated.process.pid) if title in command_of(p)]


def test_a_node_is_lost_in_mid_trial(nodes: Simulated, tmp_path: Path) -> None:
    driver = study(nodes, tmp_path / "s", trials=8)
    driver.wait_for(lambda: trials_done(tmp_path / "s") >= 2)
    nodes.kill()
    nodes.add()
    driver.finish()
    assert_whole(tmp_path / "s", tmp_path / "calm", 8)


def test_a_node_is_lost_while_the_anchors_run(nodes: Simulated, tmp_path: Path) -> None:
    driver = study(nodes, tmp_path / "s", trials=1, seeds=2, victim_steps=200)
    driver.wait_for(lambda: any((tmp_path / "s" / "artifacts").glob("*")))
    nodes.kill()
    nodes.add()
    driver.finish()
    assert_whole(tmp_path / "s", tmp_path / "calm", 1, seeds=2, victim_steps=200)


def test_a_worker_is_killed(nodes: Simulated, tmp_path: Path) -> None:
    driver = study(nodes, tmp_path / "s", trials=6, decoder_steps=100)
    driver.wait_for(lambda: trials_done(tmp_path / "s") >= 1)
    driver.wait_for(lambda: bool(running(nodes, "ray::ImplicitFunc.train")))
    os.kill(running(nodes, "ray::ImplicitFunc")[0], signal.SIGKILL)
    driver.finish()
    assert_whole(tmp_path / "s", tmp_path / "calm", 6, decoder_steps=100)


def test_the_driver_is_killed_at_ten_random_moments(nodes: Simulated, tmp_path: Path) -> None:
    """Kill some workers while Ray starts or the anchors run, some as the search begins, some later."""
    moments, storage, kept = random.Random(0), tmp_path / "s", dict[str, bytes]()
    for i in range(10):
        resume = ["--resume"] if (storage / "s" / "study.json").exists() else []
        driver = study(nodes, storage, *resume, trials=40, decoder_steps=100)
        said = "study s" if i < 3 else "done, "
        driver.wait_for(lambda d=driver, said=said: said in d.log.read_text())  # type: ignore[misc]
        if i >= 6:  # a worker needs time to start: kill these after one more trial
            before = trials_done(storage)
            driver.wait_for(lambda n=before: trials_done(storage) > n)  # type: ignore[misc]
        time.sleep(moments.uniform(0, 4))
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
    study(nodes, storage, "--resume", trials=trials, decoder_steps=100).finish()
    assert_whole(storage, tmp_path / "calm", trials, decoder_steps=100)


def test_an_episode_runs_out_of_memory(nodes: Simulated, tmp_path: Path) -> None:
    """The kernel refuses memory to a process; the study, resumed without the fault, repeats failed trials."""
    storage, fault = tmp_path / "s", Path(nodes.environment["FAULTS"]) / "memory"
    fault.touch()
    study(nodes, storage, trials=4).finish()
    fault.unlink()
    found = Records(Storage(storage), "s").read()
    starved = found["defense"] == "rounding"
    assert set(found.loc[starved, "status"]) == {"failed"}
    assert set(found.loc[starved, "error"].str.partition(":")[0]) == {"MemoryError"}
    assert set(found.loc[~starved, "status"]) == {"ok"}
    assert found.loc[~starved, "trial"].nunique() >= 3  # the study continued
    study(nodes, storage, "--resume", trials=5).finish()
    assert_whole(storage, tmp_path / "calm", 5)


def test_a_node_runs_low_on_memory(nodes: Simulated, cluster: Start, tmp_path: Path) -> None:
    """Ray's memory monitor kills every trial; a resumed study on a sound machine repeats them."""
    storage = tmp_path / "s"
    study(nodes, storage, trials=1).finish()
    full = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    study(cluster(1, full), storage, "--resume", trials=2).finish()
    found = Records(Storage(storage), "s").read()
    lost = found[found["status"] == "failed"]
    assert lost["trial"].nunique() == 1
    assert len(lost) == SETTINGS["seeds"] * len(SETTINGS["attackers"])
    assert lost["error"].str.startswith("LostError: out of memory").all(), lost["error"].unique()
    study(nodes, storage, "--resume", trials=2).finish()
    assert_whole(storage, tmp_path / "calm", 2)


def test_a_node_of_a_train_run_is_lost(cluster: Start, tmp_path: Path) -> None:
    """Two workers on simulated GPUs of two nodes: after a loss the whole group is restarted."""
    nodes = cluster(2, gpus=1)
    driver = study(nodes, tmp_path / "s", trials=1, workers=2, gpus_per_worker=1, decoder_steps=1500)
    driver.wait_for(lambda: any((tmp_path / "s" / "s" / "trials").glob("t*.json")))
    # Not the anchors' workers, which may not have ended yet.
    old = set(running(nodes, "ray::RayTrainWorker"))
    driver.wait_for(lambda: len(set(running(nodes, "ray::RayTrainWorker")) - old) == 2)
    time.sleep(1)  # until the trial is at work
    assert trials_done(tmp_path / "s") == 0
    nodes.kill()
    nodes.add()
    driver.finish()
    assert_whole(tmp_path / "s", tmp_path / "calm", 1, decoder_steps=1500)


def test_the_head_is_replaced(cluster: Start, tmp_path: Path) -> None:
    """The whole cluster is lost and only the storage is left. The driver notices and ends."""
    first = cluster(2, {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"})
    driver = study(first, tmp_path / "s", trials=6)
    driver.wait_for(lambda: trials_done(tmp_path / "s") >= 2)
    first.lose()
    assert driver.process.wait(timeout=120) != 0
    study(cluster(2), tmp_path / "s", "--resume", trials=6).finish()
    assert_whole(tmp_path / "s", tmp_path / "calm", 6)
