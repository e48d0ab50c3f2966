"""At most one driver runs a study, also if two start together; a dead driver does not block others."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket
from simulated import Driver, arguments, assert_whole, private_environment, trials_done

from mipoison.config import ConfigError
from mipoison.storage.files import Storage, StorageError
from study.pareto import main
from study.session import lease as lock
from study.session.lease import Lease, is_running, start_time

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
    """Make a lease look as if its driver ran on another machine."""
    lease._claim |= {"machine": "another", "host": "far-away", "pid": 1}
    return lease


def test_a_second_driver_is_refused_until_the_first_ends(storage: Storage) -> None:
    with Lease(storage, "s"):
        for _ in range(2):
            with pytest.raises(ConfigError, match=MESSAGE), Lease(storage, "s"):
                pass
        with Lease(storage, "other"):  # another study has its own lease
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
    assert start_time(pid) is None
    assert start_time(os.getpid()) == ours._claim["born"]
    dead = ours._claim | {"state": "holding", "pid": pid, "born": "1"}
    reused = ours._claim | {"state": "holding", "born": "1"}  # our process id, used by an earlier process
    for i, claim in enumerate((dead, reused, ["not", "a", "claim"])):
        storage.write(f"s/drivers/{i}.json", json.dumps(claim).encode())
    storage.write("s/drivers/torn.json", b"{")
    time.sleep(1.1)
    with Lease(storage, "s", stale_s=0.5):
        assert len(storage.names("s/drivers")) == 1


def test_another_machine_s_driver_is_watched(storage: Storage) -> None:
    """The lease of a driver that renews its claim is refused; otherwise the study is taken over."""
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


def planted(lease: Lease, **changes: Any) -> bytes:
    """The claim of another driver, on another machine unless the changes say otherwise."""
    there = {"machine": "another", "host": "far-away", "pid": 1, "state": "holding"}
    return json.dumps(lease._claim | there | changes).encode()


HOUR = 3600.0


@pytest.mark.parametrize("state", ["asking", "holding"])
@pytest.mark.parametrize("offset", [-1e9, -HOUR, HOUR, 1e9])
def test_a_dead_machine_s_claim_goes_whatever_its_clock_said(
    tmp_path: Path, state: str, offset: float
) -> None:
    """A claim that is not renewed is void, even with a modification time in the future."""
    storage = Storage(tmp_path)
    lease = Lease(storage, "s", renew_s=0.2, stale_s=0.6, say=lambda text: None)
    storage.write("s/drivers/dead.json", planted(lease, state=state))
    os.utime(tmp_path / "s" / "drivers" / "dead.json", times=(time.time() + offset,) * 2)
    began = time.monotonic()
    with lease:
        assert 0.6 < time.monotonic() - began < 10
        assert storage.names("s/drivers") == [lease._name]


@pytest.mark.parametrize("clock", ["frozen", "backwards", "none"])
def test_a_renewed_claim_lives_whatever_the_storage_s_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    ticks = itertools.count(2e9, -100)

    def modified(storage: Storage, folder: str) -> dict[str, float]:
        time_ = next(ticks) if clock == "backwards" else 1e9
        return {} if clock == "none" else dict.fromkeys(storage.names(folder), time_)

    monkeypatch.setattr(Storage, "modified", modified)
    storage = Storage(tmp_path)
    with elsewhere(Lease(storage, "s", renew_s=0.1, stale_s=5.0)) as holder:
        with (
            pytest.raises(ConfigError, match="process 1 on far-away"),
            Lease(storage, "s", renew_s=0.5, stale_s=5.0, say=lambda text: None),
        ):
            pytest.fail("taken from a living driver")
        assert holder.lost is None


def test_a_full_disk_leaves_the_lease_to_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk a claim cannot be rewritten, but its modification time still changes, which suffices."""
    storage = Storage(tmp_path)
    with elsewhere(Lease(storage, "s", renew_s=0.1, stale_s=2.0)) as holder:
        write = Storage.write

        def full(here: Storage, name: str, data: bytes) -> None:
            if name == holder._name:
                raise StorageError("no space left")
            write(here, name, data)

        monkeypatch.setattr(Storage, "write", full)
        with (
            pytest.raises(ConfigError, match="process 1 on far-away"),
            Lease(storage, "s", renew_s=0.5, stale_s=2.0, say=lambda text: None),
        ):
            pytest.fail("taken from a living driver")
        assert holder.lost is None


GARBAGE: dict[str, Any] = {
    "empty": b"", "torn": b"{", "binary": b"\xff\x00", "deep": b"[" * 100_000, "number": b"1e999",
    "null": b"null", "text": b'"a"', "list": b"[1]", "object": b"{}",
    "digits": b'{"pid": ' + b"9" * 5000 + b"}",
    **{f"pid {pid!r}": {"pid": pid} for pid in ("abc", "1", 1.0, -1, 0, 2**31, 10**30, True, None, [1], {})},
    **{f"born {born!r}": {"born": born} for born in (None, 1, [], "a\nb")},
    **{f"state {state!r}": {"state": state} for state in (None, 1, "", "dead")},
    **{f"{k} {text!r}": {k: text} for k in ("host", "machine", "since") for text in (None, 1, "\x1b[2J")},
}  # fmt: skip


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("what", GARBAGE)
def test_what_no_driver_wrote_is_no_claim(tmp_path: Path, what: str, here: bool) -> None:
    storage = Storage(tmp_path)
    lease = Lease(storage, "s", stale_s=30.0)
    changes = GARBAGE[what]
    if isinstance(changes, dict):
        changes = planted(lease, **({"machine": lease._claim["machine"]} if here else {}) | changes)
    storage.write("s/drivers/bad.json", changes)
    began = time.monotonic()
    with lease:
        assert storage.names("s/drivers") == [lease._name]
    assert time.monotonic() - began < 5


def test_other_things_in_its_folder_do_not_matter(tmp_path: Path) -> None:
    storage, folder = Storage(tmp_path), tmp_path / "s" / "drivers"
    (folder / "folder.json").mkdir(parents=True)
    (folder / "dangling.json").symlink_to("nowhere")
    (folder / "a\\b.json").write_bytes(b"{}")
    (folder / "README").write_bytes(b"")
    with Lease(storage, "s", stale_s=30.0) as lease:
        assert lease._name in storage.names("s/drivers")
    assert sorted(p.name for p in folder.iterdir()) == ["README", "a\\b.json", "dangling.json", "folder.json"]


def test_a_claim_that_cannot_be_removed_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path)
    storage.write("s/drivers/bad.json", b"{}")
    delete = Storage.delete

    def denied(here: Storage, name: str) -> None:
        if name.endswith("bad.json"):
            raise StorageError("permission denied")
        delete(here, name)

    monkeypatch.setattr(Storage, "delete", denied)
    with Lease(storage, "s") as lease:
        assert lease.lost is None


def test_processes_whose_beginning_is_hidden_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc, or if it hides others' processes, only a process's existence can be determined."""
    now = start_time(os.getpid())
    assert now is not None
    assert is_running(os.getpid(), now) is True
    assert is_running(os.getpid(), "1") is False
    assert is_running(os.getpid(), "alive") is None
    monkeypatch.setattr(lock, "Path", lambda path: Path("/nowhere"))
    for error, expected in ((None, None), (PermissionError, None), (ProcessLookupError, False)):

        def kill(pid: int, number: int, error: type[OSError] | None = error) -> None:
            if error:
                raise error

        monkeypatch.setattr(os, "kill", kill)
        assert is_running(os.getpid(), now) is expected
    assert is_running(10**30, now) is False


def test_a_stopped_process_of_this_machine_keeps_its_study(tmp_path: Path) -> None:
    """A stopped process does not renew its claim, but keeps the lease, because it still exists."""
    storage, process = Storage(tmp_path), subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1)
    lease = Lease(storage, "s", stale_s=0.1)
    own = {"machine": lease._claim["machine"], "pid": process.pid, "born": start_time(process.pid)}
    storage.write("s/drivers/other.json", planted(lease, **own))
    try:
        with pytest.raises(ConfigError, match=f"process {process.pid}"), lease:
            pytest.fail("taken from a living driver")
    finally:
        process.kill()
        process.wait()
    with lease:
        assert storage.names("s/drivers") == [lease._name]


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


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("no_report")
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
