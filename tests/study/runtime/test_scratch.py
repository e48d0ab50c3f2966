"""The private run folder: an account that can enter or replace it could use Ray's token and run code."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mipoison.config import ConfigError
from study.executors.environment import check_length, check_privacy, write_token
from study.runtime import scratch
from study.runtime.scratch import BASE_VARIABLE, OWNER, base_folder, check_place, make_run

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another account")
HOLD = """
import sys
from study.runtime.scratch import scratch_folder
with scratch_folder("optuna") as path:
    print(path, flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The base folder of this test; earlier run folders of this process are not touched."""
    monkeypatch.setattr(scratch, "_runs", [])
    monkeypatch.delenv(scratch.DRIVER_VARIABLE, raising=False)
    monkeypatch.setenv(BASE_VARIABLE, str(tmp_path / "base"))
    yield tmp_path / "base"
    scratch.remove_run_folder()


@pytest.mark.parametrize("umask", [0, 0o022, 0o277])
def test_nobody_else_can_enter_whatever_the_umask(named: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        run = make_run(base_folder())
        write_token(run.path / "token")
    finally:
        os.umask(old)
    assert [mode(p) for p in (named, run.path, run.path / "token", run.path / OWNER)] == [
        0o700, 0o700, 0o600, 0o600,
    ]  # fmt: skip
    run.remove()
    assert list(named.iterdir()) == []


@pytest.mark.parametrize("before", [0o777, 0o755, 0o770, 0o500])
def test_a_looser_base_of_ours_is_mended(named: Path, before: int) -> None:
    """Under an older version, Ray made the base folder world-writable."""
    (named / "session_old").mkdir(parents=True)
    (named / "session_old" / "kept").touch()
    named.chmod(before)
    run = make_run(named)
    assert mode(named) == 0o700
    assert (named / "session_old" / "kept").exists()  # its process is not known
    run.remove()


def a_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def shared(path: Path) -> None:
    path.mkdir()
    path.chmod(0o1777)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_link, "is a link to"),
        (a_dangling_link, "is a link to"),
        (Path.touch, "is not a folder"),
        (os.mkfifo, "is not a folder"),
        (shared, r"mode 1777, owner .*is a shared folder or contains"),
    ],
)
def test_a_base_that_is_no_folder_of_ours_alone_is_refused(
    named: Path, make: Callable[[Path], None], said: str
) -> None:
    make(named)
    before = mode(named)
    with pytest.raises(ConfigError, match=f"{named} .*{said}.*{BASE_VARIABLE}"):
        make_run(base_folder())
    assert mode(named) == before  # the mode of a shared folder was not changed


def test_the_home_folder_is_not_closed_to_others(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named.mkdir(mode=0o755)
    monkeypatch.setenv("HOME", str(named / "me"))
    with pytest.raises(ConfigError, match="is a shared folder or contains"):
        make_run(named)
    assert mode(named) == 0o755


@as_root
@pytest.mark.parametrize("before", [0o700, 0o777, 0o1777])
def test_another_account_s_folder_is_refused(named: Path, before: int) -> None:
    named.mkdir()
    named.chmod(before)
    os.chown(named, 65534, 65534)
    with pytest.raises(
        ConfigError, match=f"{named} belongs to another account .*mode .*owner .*{BASE_VARIABLE}"
    ):
        make_run(named)


def test_links_above_the_base_are_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv(BASE_VARIABLE, str(tmp_path / "link" / "base"))
    assert base_folder() == tmp_path / "real" / "base"


def test_what_others_can_replace_is_refused(named: Path) -> None:
    run = make_run(named)
    try:
        check_place(run.path)
        named.parent.chmod(0o777)  # a temporary folder without the sticky bit
        with pytest.raises(ConfigError, match=rf"{named.parent} \(mode 0777.*lets other accounts replace"):
            check_place(run.path)
        named.parent.chmod(0o1777)
        check_place(run.path)
        if os.getuid() == 0:
            os.chown(named.parent, 65534, 65534)  # its owner may rename entries in it
            with pytest.raises(ConfigError, match="lets other accounts replace"):
                check_place(run.path)
            os.chown(named.parent, 0, 0)
    finally:
        named.parent.chmod(0o700)
        run.remove()


def test_modes_are_checked_after_ray_changed_them(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(named)
    token, rays = run.path / "token", run.path / "r"
    write_token(token)
    rays.mkdir()
    rays.chmod(0o777)  # as Ray leaves it
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    check_privacy(rays)
    for path, wrong, right in ((run.path, 0o777, 0o700), (run.path, 0o711, 0o700), (token, 0o644, 0o600)):
        path.chmod(wrong)
        with pytest.raises(ConfigError, match=rf"{path} \(mode {wrong:04o}.*chmod"):
            check_privacy(rays)
        path.chmod(right)
    named.chmod(0o777)  # then the run folder could be renamed
    with pytest.raises(ConfigError, match="lets other accounts replace"):
        check_privacy(rays)
    named.chmod(0o700)
    token.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        check_privacy(rays)
    run.remove()


def test_a_path_too_long_for_sockets_is_refused_with_the_bound() -> None:
    check_length("/tmp/tmp.0123456789/mipoison-1000/m0000/r")  # of mktemp -d
    with pytest.raises(
        ConfigError, match=rf"/{'x' * 60} has 61 bytes, at most 35 .*107 bytes.*{BASE_VARIABLE}"
    ):
        check_length(f"/{'x' * 60}/m0000/r")


def hold(base: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a run folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], env=os.environ | {BASE_VARIABLE: str(base)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_the_killed_left_goes_and_the_living_keep_theirs(named: Path) -> None:
    living, its = hold(named)
    killed, left = hold(named)
    assert its.parent.parent == left.parent.parent == named
    killed.kill()
    killed.wait()
    foreign = [named / "m12345", named / "mine", named / "session_2026-01-01_00-00-00_000000_1"]
    for path in (*foreign, named / "mdead"):
        path.mkdir()
        (path / "file").touch()
    (named / "mbabe").symlink_to(foreign[0])
    try:
        run = make_run(named)
        assert not left.parent.exists()
        assert its.exists()
        assert all(
            (path / "file").exists() for path in (*foreign, named / "mdead")
        )  # without an owner file: not a run folder
        assert (named / "mbabe").is_symlink()
        run.remove()
    finally:
        living.communicate("")
    assert living.returncode == 0
    assert not its.parent.exists()


@as_root
def test_a_folder_that_looks_like_ours_but_is_not_stays(named: Path) -> None:
    foreign = named / "mcafe"
    foreign.mkdir(parents=True)
    (foreign / OWNER).touch()
    os.chown(foreign, 65534, 65534)
    make_run(named).remove()
    assert (foreign / OWNER).exists()


def test_a_removal_follows_no_links(named: Path, tmp_path: Path) -> None:
    run = make_run(named)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    (run.path / "link").symlink_to(tmp_path / "other")
    (run.path / "r").mkdir()
    (run.path / "r" / "link").symlink_to(tmp_path / "other")
    run.remove()
    assert not run.path.exists()
    assert (tmp_path / "other" / "file").exists()


def test_a_command_s_folder_goes_with_it_and_a_fork_leaves_it(named: Path) -> None:
    with scratch.temporary_run_folder() as folder:
        with scratch.temporary_run_folder() as again:
            assert again == folder
        assert folder.exists()
        if (pid := os.fork()) == 0:
            scratch.remove_run_folder()
            os._exit(0)
        os.waitpid(pid, 0)
        assert folder.exists()
    assert not folder.exists()


def test_a_worker_uses_the_folder_of_its_driver(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(named)
    monkeypatch.setenv(scratch.DRIVER_VARIABLE, str(run.path))
    with scratch.scratch_folder("train") as path:
        assert Path(path).parent == run.path
    run.remove()
    with scratch.scratch_folder("train") as path:  # the driver's folder is gone: the process uses its own
        assert Path(path).parents[1] == named
