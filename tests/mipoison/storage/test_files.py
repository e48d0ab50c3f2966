"""Storage: readers see whole files or none, and no name leads out of the root."""

import os
import threading
from pathlib import Path

import pytest

from mipoison.config import ConfigError
from mipoison.storage.files import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "root")


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_write_read_replace(storage: Storage, tmp_path: Path) -> None:
    assert storage.read("a/b.bin") is None
    for data in (b"one", b"", b"two\x00\n"):
        storage.write("a/b.bin", data)
        assert storage.read("a/b.bin") == data
    assert files(tmp_path / "root") == ["a/b.bin"]
    assert (tmp_path / "root/a/b.bin").read_bytes() == b"two\x00\n"


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_write_that_dies_leaves_the_old_file(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, existing: bool
) -> None:
    if existing:
        storage.write("a", b"old")

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, die)
    with pytest.raises(KeyboardInterrupt):
        storage.write("a", b"new and longer")
    monkeypatch.undo()
    assert storage.read("a") == (b"old" if existing else None)
    assert files(tmp_path / "root") == (["a"] if existing else [])


def test_the_file_is_flushed_before_it_is_renamed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _n=name, _o=original: (calls.append(_n), _o(*a))[1])
    storage.write("a", b"x")
    assert calls[:2] == ["fsync", "replace"]


def test_a_killed_writer_s_temporary_file_is_not_listed(storage: Storage, tmp_path: Path) -> None:
    storage.write("folder/done", b"x")
    (tmp_path / "root/folder/.half.0123.tmp").write_bytes(b"x")
    assert storage.names("folder") == ["folder/done"]


def test_a_reader_never_sees_half_a_file(storage: Storage) -> None:
    contents = [bytes([i]) * 200_000 for i in range(8)]
    storage.write("a", contents[0])
    threads = [threading.Thread(target=storage.write, args=("a", c)) for c in contents]
    for thread in threads:
        thread.start()
    seen = [storage.read("a") for _ in range(50)]
    for thread in threads:
        thread.join()
    assert set(seen) <= set(contents)
    assert storage.read("a") in contents


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/", "/x", "../x", "a/../x", "a/..", "a//b", "a/", "./a", "a/./b",
     "..\\x", "a\\b", "C:\\x"],
)  # fmt: skip
def test_names_cannot_leave_the_root(storage: Storage, tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(b"outside")
    calls = (
        lambda: storage.path(name),
        lambda: storage.local_path(name),
        lambda: storage.read(name),
        lambda: storage.write(name, b"evil"),
        lambda: storage.names(name),
    )
    for call in calls:
        with pytest.raises(ConfigError, match="not a plain relative path"):
            call()
    assert (tmp_path / "x").read_bytes() == b"outside"


def test_ordinary_names_stay_below_the_root(storage: Storage, tmp_path: Path) -> None:
    for name in ("a", "a/b-c_d.parquet", "..a", "a..b/c", "a b"):
        path = storage.local_path(name)
        assert path is not None
        assert path == tmp_path / "root" / name


def test_names_are_sorted_files_of_one_folder(storage: Storage) -> None:
    for name in ("f/b", "f/a", "f/deeper/c", "g/d"):
        storage.write(name, b"x")
    assert storage.names("f") == ["f/a", "f/b"]
    assert storage.names("nothing") == []
    assert [storage.read(name) for name in storage.names("f")] == [b"x", b"x"]
    assert storage.read("f") is None  # a folder is not a file


def test_check_writable_leaves_nothing_behind(storage: Storage, tmp_path: Path) -> None:
    storage.check_writable()
    assert files(tmp_path / "root") == []


def test_a_root_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="cannot be written") as caught:
            Storage(root).check_writable()
        assert str(root) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_root_is_a_config_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        Storage(tmp_path).check_writable()


def test_a_disk_that_loses_data_is_a_config_error(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Storage, "read", lambda self, name: b"")
    with pytest.raises(ConfigError, match="does not return what was written"):
        storage.check_writable()


def test_uris(tmp_path: Path) -> None:
    uri = Storage(f"file://{tmp_path}")
    assert uri.local
    uri.write("a/b", b"x")
    assert Storage(tmp_path).read("a/b") == b"x"
    with pytest.raises(ConfigError, match="nonsense://x"):
        Storage("nonsense://x")


def test_relative_and_home_roots_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Storage("here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    home = Storage("~/there")
    monkeypatch.chdir("/")
    relative.write("a", b"x")
    home.write("a", b"y")
    assert (tmp_path / "here/a").read_bytes() == b"x"
    assert (tmp_path / "home/there/a").read_bytes() == b"y"


def test_storages_pickle(storage: Storage) -> None:
    import pickle

    storage.write("a", b"x")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"x"
