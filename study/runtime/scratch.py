"""Private folders for what a run needs for itself: Ray's sockets, logs and token, files in the making.

A process has one folder, ``<base>/m<4 hex digits>``, in a base that no other account may enter:
``$MIPOISON_RAY_TMP``, or ``mipoison-<uid>`` in the temporary folder. It holds a lock on the file ``owner``
there as long as it lives, however it ends; so whoever comes next can tell what the killed have left, and
removes it. Names are short, since the paths of Ray's sockets are limited.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import grp
import os
import pwd
import re
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mipoison.config import ConfigError

BASE_VARIABLE = "MIPOISON_RAY_TMP"
"""Environment variable: the base, a short path of one's own."""
DRIVER_VARIABLE = "MIPOISON_RUN_FOLDER"
"""Environment variable: the folder of the driver, for the workers of its local Ray."""
OWNER = "owner"
_RUN = re.compile(r"m[0-9a-f]{4}")
REMOVAL_S = 2.0
"""How long what still writes into a folder is waited for when that is removed."""


@dataclass(frozen=True)
class Run:
    """A folder that this process holds."""

    path: Path
    lock: int
    pid: int

    def remove(self) -> None:
        """It goes, with all that is in it."""
        if self.pid != os.getpid():  # inherited by a fork: the parent's
            return
        _remove(self.path)
        os.close(self.lock)
        if self.path.parent.name == _default_name():
            _drop(self.path.parent)


_runs: list[Run] = []
_changing = threading.RLock()


def run_folder() -> Path:
    """This process's folder, made when it is first asked for; until the process ends or :func:`remove_run_folder`."""
    with _changing:
        for run in _runs:
            if run.pid == os.getpid() and run.path.is_dir():
                return run.path
        _runs[:] = [make_run(base_folder())]
        return _runs[0].path


def remove_run_folder() -> None:
    """Remove this process's folder, with all that is in it."""
    with _changing:
        for run in _runs:
            run.remove()
        _runs.clear()


atexit.register(remove_run_folder)


@contextlib.contextmanager
def temporary_run_folder() -> Iterator[Path]:
    """This process's folder while a command runs; what killed processes left is removed first."""
    before = [run.path for run in _runs]
    try:
        yield run_folder()
    finally:
        if not before:
            remove_run_folder()


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[str]:
    """A new folder for a while: in this process's own, or in that of the driver whose worker this is."""
    given = Path(os.environ.get(DRIVER_VARIABLE) or "/nowhere")
    ours = any(run.pid == os.getpid() for run in _runs)
    place = given if not ours and (given / OWNER).is_file() else run_folder()
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=place, ignore_cleanup_errors=True) as path:
        yield path


def base_folder() -> Path:
    """Where the base is, links above it resolved: they could lead elsewhere later."""
    named = os.environ.get(BASE_VARIABLE)
    given = os.path.expanduser(named) if named else os.path.join(tempfile.gettempdir(), _default_name())
    path = Path(os.path.abspath(given))
    return Path(os.path.realpath(path.parent)) / path.name


def _default_name() -> str:
    return f"mipoison-{os.getuid()}"


def make_run(base: Path) -> Run:
    """A new locked folder in the base; what the killed have left there goes.

    Raises:
        ConfigError: the base is a link, no folder, another account's, or one that accounts share.
    """
    with _alone(base):
        _sweep(base)
        for _ in range(1000):
            path = base / f"m{secrets.token_hex(2)}"
            try:
                os.mkdir(path)
            except FileExistsError:
                continue
            os.chmod(path, 0o700)  # whatever the umask
            lock = os.open(path / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.fchmod(lock, 0o600)
            os.write(lock, f"process {os.getpid()}\n".encode())
            with contextlib.suppress(OSError):  # no locks there: nobody can lock it to remove it, either
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Run(path, lock, os.getpid())
    raise ConfigError(f"{base} is full of folders of other runs: remove those that are not in use")


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """While this process alone adds to the base or removes from it; the base is made or mended."""
    while True:
        held = _open_base(base)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(held), os.lstat(base))
            except FileNotFoundError:
                same = False
            if same:  # else its last user removed it, meanwhile
                yield
                return
        finally:
            os.close(held)


def _drop(base: Path) -> None:
    """The base goes with the last run in it."""
    try:
        held = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_EX)
        os.rmdir(base)
    os.close(held)


def _open_base(base: Path) -> int:
    """A descriptor of the base, which belongs to this account alone: mode 0700."""
    remedy = f"set {BASE_VARIABLE} to a short path of your own"
    try:
        for missing in [p for p in (base, *base.parents) if not os.path.lexists(p)][::-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(missing, 0o700)
                os.chmod(missing, 0o700)  # whatever the umask
        found = os.lstat(base)
        if stat.S_ISLNK(found.st_mode):
            raise ConfigError(f"{base} is a link to {os.readlink(base)}: remove it, or {remedy}")
        if not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"{base} is not a folder: remove it, or {remedy}")
        if found.st_uid != os.getuid():
            raise ConfigError(f"{base} is somebody else's ({_about(found)}): {remedy}")
        open_, home = found.st_mode & 0o077, Path(os.path.expanduser("~"))
        if open_ and (found.st_mode & stat.S_ISVTX or home.is_relative_to(base)):
            raise ConfigError(
                f"{base} ({_about(found)}) has other uses, and would be closed to all other accounts: "
                f"set {BASE_VARIABLE} to a folder of your own below it"
            )
        held = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if not os.path.samestat(found, os.fstat(held)):
            os.close(held)
            raise ConfigError(f"{base} was replaced by another one while it was opened: {remedy}")
        if stat.S_IMODE(found.st_mode) != 0o700:  # an older version's Ray opened it to everybody
            os.fchmod(held, 0o700)
    except OSError as error:
        raise ConfigError(f"{base} cannot be used ({error.strerror}): {remedy}") from error
    return held


def _sweep(base: Path) -> None:
    """Remove the folders of processes that are gone: ours by name, owner and an unlocked ``owner`` file."""
    for entry in os.scandir(base):
        if (
            not _RUN.fullmatch(entry.name)
            or not entry.is_dir(follow_symlinks=False)
            or entry.stat(follow_symlinks=False).st_uid != os.getuid()
        ):
            continue
        try:
            lock = os.open(f"{entry.path}/{OWNER}", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:  # killed before it wrote anything
            with contextlib.suppress(OSError):
                os.rmdir(entry.path)
            continue
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its process lives
            continue
        else:
            _remove(Path(entry.path), 0.0)
        finally:
            os.close(lock)


def _remove(run: Path, patience_s: float = REMOVAL_S) -> None:
    """All of it, ``owner`` last: what cannot be removed now is found by the next sweep."""
    until = time.monotonic() + patience_s
    while True:
        left = [p for p in run.glob("*") if p.name != OWNER]
        for path in left:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        if not any(p.name != OWNER for p in run.glob("*")):
            with contextlib.suppress(OSError):
                (run / OWNER).unlink()
                run.rmdir()
            return
        if time.monotonic() > until:
            return
        time.sleep(0.1)


def check_private(path: Path) -> None:
    """ConfigError unless no other account can enter a folder of ours, or put another one in its place."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"{path} ({_about(found)}) is open to other accounts, who could run code as you: "
            f"chmod 700 it, or set {BASE_VARIABLE} to a short path of your own"
        )
    check_place(path)


def check_secret(path: Path) -> None:
    """ConfigError unless a file of ours can be neither read nor replaced by another account."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise ConfigError(f"Ray's token {path} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.getuid()) or found.st_mode & 0o077:
        raise ConfigError(
            f"Ray's token {path} ({_about(found)}) is open to other accounts, who could run code as you: "
            "chmod 600 it, and make a new one if others may have read it"
        )
    check_place(path)


def read_own(path: Path, most: int = 4096) -> str:
    """A short text file that we or root wrote, in a folder of ours or root's.

    The folder itself may be open to everybody, as Ray's is: another account can then remove the file, or put
    one there, which is its own and refused.

    Raises:
        ConfigError: another account wrote it, could write to it, or could put a folder above it in place.
        OSError: it cannot be opened, or is a link. ValueError: it is no text.
    """
    held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(held, "rb") as file:
        found = os.fstat(held)
        shared = found.st_mode & 0o002 or (found.st_mode & 0o020 and not _only_ours(found.st_gid))
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise ConfigError("not a file, or one of several names")
        if found.st_uid not in (0, os.getuid()) or shared:
            raise ConfigError(f"{_about(found)}: another account wrote it, or could")
        for folder in {path.parent, Path(os.path.realpath(path.parent))}:
            if (of := os.lstat(folder)).st_uid not in (0, os.getuid()):
                raise ConfigError(f"{folder} ({_about(of)}) is another account's")
        try:
            check_place(path.parent)
        except ConfigError as error:
            raise ConfigError(str(error).partition(": ")[0]) from error
        return file.read(most).decode()


def check_place(path: Path) -> None:
    """ConfigError where another account can rename a file, or a folder above it, and put its own there."""
    for above in Path(os.path.realpath(path)).parents:
        found = os.stat(above)
        sticky = found.st_mode & stat.S_ISVTX
        writable = found.st_mode & 0o002 or (found.st_mode & 0o020 and not _only_ours(found.st_gid))
        if found.st_uid not in _trusted() or (writable and not sticky):
            raise ConfigError(
                f"{above} ({_about(found)}) lets other accounts replace {path}: "
                f"chmod go-w {above}, or set {BASE_VARIABLE} to a short path that is yours alone"
            )


def _trusted() -> set[int]:
    """Accounts that may own the folders above: root, we, and in a user namespace who has no name there."""
    trusted = {0, os.getuid()}
    with contextlib.suppress(OSError, ValueError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            trusted.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return trusted


def _only_ours(gid: int) -> bool:
    """Whether a group is an account's own (Debian's rule for SSH): its name, and nobody else in it."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


def _about(found: os.stat_result) -> str:
    """Mode and owner, for a message."""
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return f"mode {stat.S_IMODE(found.st_mode):04o}, owner {owner}"
