"""After a full disk, a storage outage or damaged files, a study still ends with complete, equal records."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from buckets import Bucket
from simulated import Driver, arguments, assert_whole, numbers, private_environment, trials_done

import mipoison.scene
from mipoison.attacks.trained_once import SECONDS
from mipoison.defenses import ANCHORS
from mipoison.storage.files import PATIENCE, Storage
from study.pareto import main
from study.records.store import Records
from study.render import main as render

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400), pytest.mark.usefixtures("no_report")]
LOCAL = ["--executor", "local"]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    with private_environment() as environment:
        yield environment


def run(storage: Path | str, *more: str, **changes: object) -> int:
    """Run a study in this process, after clearing its cache of scenes."""
    mipoison.scene._remembered.cache_clear()
    command = [*arguments(Path("x"), **changes), *LOCAL, *more]
    command[1] = str(storage)
    return main(command)


# ---------------------------------------------------------------- S3


def test_a_study_in_an_object_store_and_its_resume(server: Bucket, tmp_path: Path) -> None:
    uri = server.at("whole")
    assert run(uri, trials=2) == 0
    assert run(uri, trials=2) == 2  # exists
    first = Records(Storage(uri), "s").read()
    assert run(uri, "--resume", trials=3) == 0
    later = Records(Storage(uri), "s").read()
    pd.testing.assert_frame_equal(later[later["trial"].isin(first["trial"])].reset_index(drop=True), first)
    assert_whole(server.fetch(tmp_path / "copy", uri), tmp_path / "calm", 3)


def test_the_storage_is_away_for_30_s(server: Bucket, environment: dict[str, str], tmp_path: Path) -> None:
    uri = server.at("away")
    command = [*arguments(Path("x"), trials=6), *LOCAL]
    command[1] = uri
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    driver, storage = Driver(environment | keys, command), Storage(uri)
    driver.wait_for(lambda: any("/t0" in name for name in storage.names("s/episodes")))
    server.pause(30)
    output = driver.finish()
    assert "Traceback" not in output
    assert_whole(server.fetch(tmp_path / "copy", uri), tmp_path / "calm", 6)


# ---------------------------------------------------------------- a full disk


class SmallDisk:
    """A small file system (tmpfs) in its own mount namespace, accessible here through ``/proc``."""

    def __init__(self, size: str, mount: str) -> None:
        self.mount = mount
        script = 'mount -t tmpfs -o size="$1" none "$2" && echo ready && exec sleep 600'
        user = [] if os.geteuid() == 0 else ["-r"]
        self.process = subprocess.Popen(
            ["unshare", *user, "-m", "sh", "-c", script, "sh", size, mount],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            assert self.process.stderr is not None
            pytest.skip(f"no file system of our own here: {self.process.stderr.read().strip()}")
        self.here = Path(f"/proc/{self.process.pid}/root{mount}")
        self.enter = ["nsenter", *(["--preserve-credentials", "-U"] if user else []), "-m"]
        self.enter += ["-t", str(self.process.pid), "--wd=" + os.getcwd()]

    def fill(self) -> None:
        with open(self.here / "filler", "wb", buffering=0) as file:
            size = 1 << 20
            while size:
                try:
                    file.write(b"\0" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC  # noqa: PT017
                    size //= 2

    def free(self) -> None:
        (self.here / "filler").unlink()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(timeout=30)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("no unshare and nsenter: a disk of our own cannot be mounted")
    (tmp_path / "disk").mkdir()
    small = SmallDisk("64m", str(tmp_path / "disk"))
    yield small
    small.close()


def test_the_disk_is_full(
    disk: SmallDisk, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage is away for longer than the retries last, then for a moment."""
    entered = tmp_path / "python"
    entered.write_text(f'#!/bin/sh\nexec {" ".join(disk.enter)} {sys.executable} "$@"\n')
    entered.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(entered))
    command = [*arguments(Path(disk.mount), trials=8), *LOCAL]

    driver = Driver(environment | {PATIENCE: "2"}, command)
    driver.wait_for(lambda: trials_done(disk.here) >= 1)
    disk.fill()
    output = driver.finish(expected=1)
    error = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(error) == 1, output
    assert "No space left on device" in error[0]
    assert "--resume --name s" in error[0]
    assert "Traceback" not in output
    assert not list(disk.here.rglob("*.tmp"))
    kept = {p.name: p.read_bytes() for p in (disk.here / "s" / "episodes").iterdir()}
    disk.free()

    driver = Driver(environment, [*command, "--resume"])
    done = trials_done(disk.here)
    driver.wait_for(lambda: trials_done(disk.here) > done)
    disk.fill()
    driver.wait_for(lambda: "No space left on device; trying again for" in driver.log.read_text())
    disk.free()
    assert "Traceback" not in driver.finish()
    assert all((disk.here / "s" / "episodes" / name).read_bytes() == data for name, data in kept.items())
    copy = tmp_path / "copy"
    shutil.copytree(disk.here, copy)
    assert_whole(copy, tmp_path / "calm", 8)


# ---------------------------------------------------------------- damaged files


class Payload:
    """Makes a folder when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of two trials; the tests damage copies of it."""
    root = tmp_path_factory.mktemp("finished")
    assert run(root, trials=2) == 0
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "root")
    return tmp_path / "root"


def test_damaged_artifacts_are_rebuilt(root: Path, finished: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    bomb = pickle.dumps(Payload(marker))
    signed = hashlib.sha256(bomb).hexdigest().encode() + b"\n" + bomb
    for i, path in enumerate(sorted((root / "artifacts").iterdir())):
        data = path.read_bytes()
        middle = len(data) // 2
        altered = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes([data[:middle], altered, bomb, signed][i % 4])
    shutil.rmtree(root / "s" / "episodes")  # so that every artifact is needed again
    assert run(root, "--resume", trials=2) == 0
    assert not marker.exists()
    for path in (root / "artifacts").iterdir():
        head, _, payload = path.read_bytes().partition(b"\n")
        assert hashlib.sha256(payload).hexdigest() == head.decode()
        if path.name.startswith("episode-"):
            assert json.loads(payload)["record"]["status"] == "ok"
        elif path.name.startswith("attacker-"):  # holds the time that its training took, too
            _, _, before = (finished / "artifacts" / path.name).read_bytes().partition(b"\n")
            now, then = safetensors.torch.load(payload), safetensors.torch.load(before)
            assert now.keys() == then.keys()
            assert all(torch.equal(now[name], then[name]) for name in now if name != SECONDS)
        else:
            assert path.read_bytes() == (finished / "artifacts" / path.name).read_bytes()
    assert_whole(root, tmp_path / "calm", 2)


def test_damaged_records_run_again(
    root: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episodes = root / "s" / "episodes"
    first, second = sorted(episodes.glob("t*.parquet"))
    data = first.read_bytes()
    first.write_bytes(data[: len(data) // 2])
    (episodes / "t0009-noise.a0.parquet").write_bytes(second.read_bytes())  # another trial's rows
    pq.write_table(pq.read_table(second).select(["trial", "seed"]), episodes / "t0010-noise.a0.parquet")
    (episodes / f"{ANCHORS[0]}.a0.parquet").write_bytes(b"")
    found = Records(Storage(root), "s").read()
    assert sorted(found["trial"].unique()) == [ANCHORS[1], second.name.split(".")[0]]
    assert render([str(root / "s"), "--out", str(tmp_path / "page")]) == 0
    assert run(root, "--resume", trials=2) == 0
    assert capsys.readouterr().out.count("moved to damaged/") == 4
    assert len(list((root / "s" / "damaged").iterdir())) == 4
    again = first.name.replace(".a0.", ".a1.")
    assert sorted(p.name for p in episodes.glob("t*")) == sorted([again, second.name])
    before, now = (numbers(Records(Storage(r), "s").read()) for r in (finished, root))
    pd.testing.assert_frame_equal(before, now)
    assert len(pd.read_parquet(episodes)) == len(now)
    assert_whole(root, tmp_path / "calm", 2)


def test_a_trial_whose_description_is_damaged_is_not_tried_twice(root: Path, tmp_path: Path) -> None:
    texts = {}
    for path in (root / "s" / "trials").iterdir():
        texts[path] = path.read_bytes()
        path.write_bytes(b"\x80\x04")
    assert run(root, "--resume", trials=4) == 0
    for path, text in texts.items():
        path.write_bytes(text)
    assert_whole(root, tmp_path / "calm", 4)


# ---------------------------------------------------------------- readers while writers write

WRITER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from study.records.store import Records
from mipoison.storage.files import Storage
row = {"defense": "noise", "status": "ok", "model_accuracy": 0.9}
rows = [row | {"episode_id": f"{s}{a}", "seed": s, "attack": a} for s in range(3) for a in ("raw", "passive")]
records = Records(Storage(sys.argv[1]), "s")
me = sys.argv[3]
for i in range(12):
    for attempt in range(1 + i % 2):
        records.write_trial(f"w{me}x{i}", attempt, rows)
    time.sleep(0.25)
"""


@pytest.mark.parametrize("where", ["local", "s3"])
def test_readers_while_writers_write(tmp_path: Path, where: str, request: pytest.FixtureRequest) -> None:
    """A reader never gets an exception, a partial trial, or fewer trials than before."""
    root = str(tmp_path / "r")
    if where == "s3":
        root = request.getfixturevalue("server").at(f"readers/{tmp_path.name}")
    storage = Storage(root)
    per_trial = 6
    if where == "local":  # leftovers of killed writers
        folder = tmp_path / "r" / "s" / "episodes"
        folder.mkdir(parents=True)
        (folder / f".t.a0.parquet.{'0' * 32}.tmp").write_bytes(b"PAR1 torn")
        (folder / f".u.a0.parquet.{'1' * 32}.tmp").write_bytes(b"")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, root, str(Path(__file__).parents[2]), str(i)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    seen, plain = [0], [0]
    while any(w.poll() is None for w in writers):
        frame = Records(storage, "s").read()
        assert set(frame["trial"].value_counts()) <= {per_trial}
        seen.append(frame["trial"].nunique())
        if seen[-1] == 0:
            continue
        if where == "local":
            table = pd.read_parquet(folder, columns=["trial", "attempt"])
        else:
            parts = pq.read_table(
                storage.path("s/episodes"), filesystem=storage._fs, columns=["trial", "attempt"]
            )
            table = parts.to_pandas()
        assert set(table.groupby(["trial", "attempt"]).size()) == {per_trial}
        plain.append(len(table))
    for writer in writers:
        _, error = writer.communicate(timeout=60)
        assert writer.returncode == 0, error
    assert seen == sorted(seen)
    assert plain == sorted(plain)
    assert len(set(seen)) > 2  # the reader saw intermediate states
    frame = Records(storage, "s").read()
    assert frame["trial"].nunique() == 36
    assert set(frame["attempt"]) == {0, 1}
