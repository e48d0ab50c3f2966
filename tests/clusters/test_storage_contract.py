"""The contract of every storage, on disk and in an object store; and S3's URIs, servers and errors."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import mipoison.storage.files as storage_module
from mipoison.config import ConfigError
from mipoison.storage.files import PATIENCE, Storage, StorageError


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(tmp_path / "root")
    return Storage(request.getfixturevalue("server").at(f"contract/{tmp_path.name}"))


# ---------------------------------------------------------------- alike everywhere


def test_write_read_list_delete(storage: Storage) -> None:
    assert storage.read("a/b") is None
    assert storage.names("a") == []
    for data in (b"one", b"", b"x" * 12_000_000, b"two\0\n"):
        storage.write("a/b", data)
        assert storage.read("a/b") == data
    storage.write("a/a", b"")
    storage.write("a/deeper/c", b"")
    assert storage.names("a") == ["a/a", "a/b"]
    assert storage.read("a") is None
    storage.delete("a/b")
    storage.delete("a/b")  # deleted before
    assert storage.names("a") == ["a/a"]


def test_times_are_the_storage_s_and_touch_renews_them(storage: Storage) -> None:
    storage.write("a/b", b"x")
    before = storage.modified("a")
    assert list(before) == ["a/b"]
    assert abs(before["a/b"] - time.time()) < 30
    time.sleep(1.1)  # modification times of objects have whole seconds
    storage.touch("a/b")
    assert storage.modified("a")["a/b"] > before["a/b"]
    assert storage.read("a/b") == b"x"
    with pytest.raises(FileNotFoundError):
        storage.touch("a/none")


def test_check_writable_leaves_nothing(storage: Storage) -> None:
    storage.check_writable()
    assert [i.base_name for i in storage._files("x")] == []
    storage.write("x/y", b"")
    assert storage.names("x") == ["x/y"]


def test_a_root_travels_to_other_processes(storage: Storage) -> None:
    storage.write("a", b"kept")
    assert Storage(storage.root).read("a") == b"kept"
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"kept"
    code = "import sys; from mipoison.storage import Storage; print(Storage(sys.argv[1]).read('a').decode())"
    out = subprocess.run(
        [sys.executable, "-c", code, storage.root], capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert out.stdout == "kept\n", out.stderr


def test_below_and_where(storage: Storage) -> None:
    below = storage.below("folder/deeper")
    below.write("a", b"x")
    assert storage.read("folder/deeper/a") == b"x"
    assert below.root == storage.where("folder/deeper")
    assert below.patience_s == storage.patience_s
    with pytest.raises(ConfigError):
        storage.below("../x")


def test_a_reader_sees_whole_files(storage: Storage) -> None:
    contents = [bytes([i]) * (200_000 + 50_000 * i) for i in range(8)]
    storage.write("a", contents[0])
    threads = [threading.Thread(target=storage.write, args=("a", c)) for c in contents]
    for thread in threads:
        thread.start()
    seen = [storage.read("a") for _ in range(20)]
    for thread in threads:
        thread.join()
    assert set(seen) <= set(contents)


@pytest.mark.parametrize("name", ["", "..", "/x", "../x", "a/../x", "a//b", "a\\b", "a\0b", "./a"])
def test_names_cannot_leave_the_root(storage: Storage, name: str) -> None:
    for call in (storage.read, storage.names, storage.delete, storage.touch, storage.below):
        with pytest.raises(ConfigError, match="not a plain relative path"):
            call(name)


# ---------------------------------------------------------------- links of the file system


def test_links_cannot_lead_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    storage = Storage(tmp_path / "root")
    storage.write("e/inside", b"x")
    (tmp_path / "root/folder").symlink_to(tmp_path / "outside")
    (tmp_path / "root/e/file").symlink_to(tmp_path / "outside/secret")
    (tmp_path / "root/e/alias").symlink_to(tmp_path / "root/e/inside")
    for name in ("folder/secret", "folder/new", "e/file"):
        for call in (lambda n=name: storage.read(n), lambda n=name: storage.write(n, b"evil")):
            with pytest.raises(ConfigError, match="leads outside"):
                call()
    assert storage.names("e") == ["e/alias", "e/inside"]
    assert storage.read("e/alias") == b"x"
    assert (tmp_path / "outside/secret").read_bytes() == b"secret"
    assert [p.name for p in (tmp_path / "outside").iterdir()] == ["secret"]


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    Storage(tmp_path / "root").write("a/b", b"x")
    assert (tmp_path / "disk/a/b").read_bytes() == b"x"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EIO])
def test_what_may_pass_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage_module, "FIRST_WAIT_S", 0.01)
    storage, left = Storage(tmp_path), [OSError(number, "not now")] * 3
    original = Storage._write

    def write(self: Storage, path: str, data: bytes) -> None:
        if left:
            raise left.pop()
        original(self, path, data)

    monkeypatch.setattr(Storage, "_write", write)
    storage.write("a", b"x")
    assert storage.read("a") == b"x"
    assert caplog.text.count("trying again") == 1


def test_what_does_not_pass_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def write(self: Storage, path: str, data: bytes) -> None:
        calls.append(path)
        raise PermissionError(errno.EACCES, "not yours")

    monkeypatch.setattr(Storage, "_write", write)
    with pytest.raises(StorageError, match=r"cannot write a: .*not yours"):
        Storage(tmp_path).write("a", b"x")
    assert len(calls) == 1


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_the_patience_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(PATIENCE, text)
    with pytest.raises(ConfigError, match=f"{PATIENCE} = '{text}'"):
        Storage(tmp_path)
