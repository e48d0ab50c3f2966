"""One driver a study: refused while another runs, also if both start at once; a dead one blocks nobody."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import Bucket
from simulated import Driver, arguments, assert_whole, private_environment, trials_done

from mipoison.config import ConfigError
from mipoison.storage import Storage
from study.lock import Lease, born
from study.pareto import main

MESSAGE = rf"study 's' in .* is being run by process {os.getpid()} on .* since .*: wait for it, stop it"


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(tmp_path / "root")
    server: Bucket = request.getfixturevalue("server")
    return Storage(server.at(f"lock/{tmp_path.name}"))


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    with private_environment() as environment:
        yield environment


def elsewhere(lease: Lease) -> Lease:
    """The lease as if its driver ran on another machine."""
    lease._claim |= {"machine": "another", "host": "far-away", "pid": 1}
    return lease


def test_a_second_driver_is_refused_until_the_first_ends(storage: Storage) -> None:
    with Lease(storage, "s"):
        for _ in range(2):
            with pytest.raises(ConfigError, match=MESSAGE), Lease(storage, "s"):
                pass
        with Lease(storage, "other"):  # another study is nobody's
            pass
        assert len(storage.names("s/drivers")) == 1
    with Lease(storage, "s"):
        pass
    assert storage.names("s/drivers") == []


def test_a_refused_study_leaves_nothing(tmp_path: Path) -> None:
    with Lease(Storage(tmp_path), "s"):
        assert (tmp_path / "s").exists()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_start_at_once_one_goes_on(storage: Storage) -> None:
    held: list[int] = []
    refused: list[str] = []
    start, done = threading.Barrier(5), threading.Event()

    def drive(i: int) -> None:
        start.wait()
        try:
            with Lease(storage, "s"):
                held.append(i)
                done.wait(60)
        except ConfigError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=drive, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(held) + len(refused) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join(timeout=60)
    assert len(held) == 1
    assert len(refused) == 4


def test_a_process_that_is_gone_counts_for_nothing(storage: Storage) -> None:
    ours = Lease(storage, "s")
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert born(pid) is None
    assert born(os.getpid()) == ours._claim["born"]
    dead = ours._claim | {"state": "holding", "pid": pid, "born": "1"}
    reused = ours._claim | {"state": "holding", "born": "1"}  # our id, of a process before us
    for i, claim in enumerate((dead, reused, ["not", "a", "claim"])):
        storage.write(f"s/drivers/{i}.json", json.dumps(claim).encode())
    storage.write("s/drivers/torn.json", b"{")
    time.sleep(1.1)
    with Lease(storage, "s", stale_s=0.5):
        assert len(storage.names("s/drivers")) == 1


def test_another_machine_s_driver_is_watched(storage: Storage) -> None:
    """A renewed claim tells that it lives; one that is not renewed is taken over."""
    said: list[str] = []
    first = elsewhere(Lease(storage, "s", renew_s=1.0, stale_s=4.0))
    second = Lease(storage, "s", renew_s=1.0, stale_s=4.0, say=said.append)
    with first, pytest.raises(ConfigError, match="process 1 on far-away"), second:
        pytest.fail("taken from a living driver")
    assert len(said) == 1
    assert "waiting up to 4 s" in said[0]
    storage.write("s/drivers/dead.json", json.dumps(first._claim | {"state": "holding"}).encode())
    began = time.monotonic()
    with Lease(storage, "s", renew_s=1.0, stale_s=3.0, say=said.append):
        assert 1 < time.monotonic() - began < 15
        assert storage.read("s/drivers/dead.json") is None


@pytest.mark.parametrize("how", ["removed", "taken over"])
def test_a_lost_lease_stops_its_driver(tmp_path: Path, how: str) -> None:
    storage = Storage(tmp_path)
    lease = Lease(storage, "s", renew_s=0.1)
    with pytest.raises(KeyboardInterrupt), lease:  # noqa: PT012
        if how == "removed":
            storage.delete(lease._name)
        else:
            other = elsewhere(Lease(storage, "s"))
            other._write("holding")
        time.sleep(30)
    assert lease.lost is not None
    assert "no longer this driver's" in lease.lost
    assert ("far-away" in lease.lost) == (how == "taken over")


@pytest.mark.timeout(400)
def test_a_driver_runs_alone_and_a_killed_one_does_not_block(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "s"
    local = ["--executor", "local"]
    first = Driver(environment, [*arguments(root, trials=40), *local])
    first.wait_for(lambda: trials_done(root) >= 1)
    for more in (["--resume"], []):
        assert main([*arguments(root, trials=40), *local, *more]) == 2
        error = capsys.readouterr().err
        assert f"is being run by process {first.process.pid} on" in error
        assert error.count("\n") == 1
    first.kill()
    done = trials_done(root)
    assert main([*arguments(root, trials=done + 1), *local, "--resume"]) == 0
    capsys.readouterr()
    assert not (root / "s" / "drivers").exists()
    assert_whole(root, tmp_path / "calm", done + 1)
