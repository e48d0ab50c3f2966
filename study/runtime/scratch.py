"""Private temporary folders of a run, for Ray's sockets, logs and token, and for unfinished files.

Each process has one run folder, ``<base>/m<4 hex digits>``. No other account may enter the base, which is
``$MIPOISON_RAY_TMP``, or ``mipoison-<uid>`` in the system's temporary folder. The process locks the file
``owner`` in its run folder; the lock ends with the process, even if it is killed. A later run can therefore
recognise abandoned folders and remove them. Names are short because the length of Ray's socket paths is
limited.
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
from study.runtime.watchdog import add_last_resort

BASE_VARIABLE = "MIPOISON_RAY_TMP"
"""Environment variable with the base folder; a short path that no other account uses."""
DRIVER_VARIABLE = "MIPOISON_RUN_FOLDER"
"""Environment variable with the driver's run folder, for the workers of its local Ray."""
OWNER = "owner"
_RUN = re.compile(r"m[0-9a-f]{4}")
REMOVAL_S = 2.0
"""How long to retry the removal of a folder while other processes still write into it."""


@dataclass(frozen=True)
class Run:
    """A run folder that this process has locked."""

    path: Path
    lock: int
    pid: int

    def remove(self) -> None:
        """Delete the folder and its content."""
        if self.pid != os.getpid():  # a fork inherited this object; the folder is the parent's
            return
        _remove(self.path)
        os.close(self.lock)
        if self.path.parent.name == _default_name():
            _remove_base(self.path.parent)


_runs: list[Run] = []
_runs_lock = threading.RLock()


def run_folder() -> Path:
    """This process's run folder, created on first use; it is removed when the process ends."""
    with _runs_lock:
        for run in _runs:
            if run.pid == os.getpid() and run.path.is_dir():
                return run.path
        _runs[:] = [make_run(base_folder())]
        return _runs[0].path


def remove_run_folder() -> None:
    """Delete this process's run folder and its content."""
    with _runs_lock:
        for run in _runs:
            run.remove()
        _runs.clear()


atexit.register(remove_run_folder)
add_last_resort(remove_run_folder)


@contextlib.contextmanager
def temporary_run_folder() -> Iterator[Path]:
    """This process's run folder, removed at the end. Folders that killed processes left are removed first."""
    before = [run.path for run in _runs]
    try:
        yield run_folder()
    finally:
        if not before:
            remove_run_folder()


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[str]:
    """A temporary folder inside this process's run folder, or inside the driver's if this is its worker."""
    given = Path(os.environ.get(DRIVER_VARIABLE) or "/nowhere")
    ours = any(run.pid == os.getpid() for run in _runs)
    place = given if not ours and (given / OWNER).is_file() else run_folder()
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=place, ignore_cleanup_errors=True) as path:
        yield path


def base_folder() -> Path:
    """The path of the base folder; links above it are resolved, because they could change later."""
    named = os.environ.get(BASE_VARIABLE)
    given = os.path.expanduser(named) if named else os.path.join(tempfile.gettempdir(), _default_name())
    path = Path(os.path.abspath(given))
    return Path(os.path.realpath(path.parent)) / path.name


def _default_name() -> str:
    return f"mipoison-{os.getuid()}"


def make_run(base: Path) -> Run:
    """Create and lock a run folder in the base, after removing folders that killed processes left.

    Raises:
        ConfigError: the base is a link or no folder, or belongs to or is shared with another account.
    """
    with _locked(base):
        _remove_abandoned(base)
        for _ in range(1000):
            path = base / f"m{secrets.token_hex(2)}"
            try:
                os.mkdir(path)
            except FileExistsError:
                continue
            os.chmod(path, 0o700)  # the umask may have removed more
            lock = os.open(path / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.fchmod(lock, 0o600)
            os.write(lock, f"process {os.getpid()}\n".encode())
            with contextlib.suppress(OSError):  # without file locks no other run can remove the folder either
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Run(path, lock, os.getpid())
    raise ConfigError(f"{base} is full of folders of other runs: remove those that are not in use")


@contextlib.contextmanager
def _locked(base: Path) -> Iterator[None]:
    """Lock the base, so that no other process changes it; creates it and corrects its mode if necessary."""
    while True:
        held = _open_base(base)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(held), os.lstat(base))
            except FileNotFoundError:
                same = False
            if same:  # otherwise its last user removed it in the meantime: try again
                yield
                return
        finally:
            os.close(held)


def _remove_base(base: Path) -> None:
    """Remove the base if no run folder is left in it."""
    try:
        held = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_EX)
        os.rmdir(base)
    os.close(held)


def _open_base(base: Path) -> int:
    """A descriptor of the base, which this account owns and no other can enter (mode 0700)."""
    remedy = f"set {BASE_VARIABLE} to a short path of your own"
    try:
        for missing in [p for p in (base, *base.parents) if not os.path.lexists(p)][::-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(missing, 0o700)
                os.chmod(missing, 0o700)  # the umask may have removed more
        found = os.lstat(base)
        if stat.S_ISLNK(found.st_mode):
            raise ConfigError(f"{base} is a link to {os.readlink(base)}: remove it, or {remedy}")
        if not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"{base} is not a folder: remove it, or {remedy}")
        if found.st_uid != os.getuid():
            raise ConfigError(f"{base} belongs to another account ({_mode_and_owner(found)}): {remedy}")
        open_, home = found.st_mode & 0o077, Path(os.path.expanduser("~"))
        if open_ and (found.st_mode & stat.S_ISVTX or home.is_relative_to(base)):
            raise ConfigError(
                f"{base} ({_mode_and_owner(found)}) is a shared folder or contains your home, and would be "
                f"closed to all other accounts: set {BASE_VARIABLE} to a folder of your own below it"
            )
        held = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if not os.path.samestat(found, os.fstat(held)):
            os.close(held)
            raise ConfigError(f"{base} was replaced by another one while it was opened: {remedy}")
        if stat.S_IMODE(found.st_mode) != 0o700:  # under an older version Ray made it world-readable
            os.fchmod(held, 0o700)
    except OSError as error:
        raise ConfigError(f"{base} cannot be used ({error.strerror}): {remedy}") from error
    return held


def _remove_abandoned(base: Path) -> None:
    """Remove run folders of ended processes: named and owned like ours, with an unlocked ``owner`` file."""
    for entry in os.scandir(base):
        if (
            not _RUN.fullmatch(entry.name)
            or not entry.is_dir(follow_symlinks=False)
            or entry.stat(follow_symlinks=False).st_uid != os.getuid()
        ):
            continue
        try:
            lock = os.open(f"{entry.path}/{OWNER}", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:  # the process was killed before it wrote the file
            with contextlib.suppress(OSError):
                os.rmdir(entry.path)
            continue
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # locked: its process still runs
            continue
        else:
            _remove(Path(entry.path), 0.0)
        finally:
            os.close(lock)


def _remove(run: Path, patience_s: float = REMOVAL_S) -> None:
    """Delete a run folder, the ``owner`` file last, so that a later run finds what could not be deleted."""
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
    """Raise ConfigError if another account can enter or replace this folder."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"{path} ({_mode_and_owner(found)}) is open to other accounts, who could run code as you: "
            f"chmod 700 it, or set {BASE_VARIABLE} to a short path of your own"
        )
    check_place(path)


def check_secret(path: Path) -> None:
    """Raise ConfigError if another account can read or replace this file."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise ConfigError(f"Ray's token {path} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.getuid()) or found.st_mode & 0o077:
        raise ConfigError(
            f"Ray's token {path} ({_mode_and_owner(found)}) is open to other accounts, who could run code as "
            "you: chmod 600 it, and make a new one if others may have read it"
        )
    check_place(path)


def read_own(path: Path, most: int = 4096) -> str:
    """Read a short text file that this account or root wrote, in a folder that belongs to one of them.

    Other accounts may be able to write to the folder itself, as Ray makes its folder world-writable. They can
    then replace the file, but the new file would belong to them and is refused.

    Raises:
        ConfigError: another account wrote the file, could write to it, or could replace a folder above it.
        OSError: the file cannot be opened, or is a link. ValueError: it is not text.
    """
    held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(held, "rb") as file:
        found = os.fstat(held)
        shared = found.st_mode & 0o002 or (found.st_mode & 0o020 and not _only_ours(found.st_gid))
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise ConfigError("not a file, or one of several names")
        if found.st_uid not in (0, os.getuid()) or shared:
            raise ConfigError(f"{_mode_and_owner(found)}: another account wrote it, or could")
        for folder in {path.parent, Path(os.path.realpath(path.parent))}:
            if (of := os.lstat(folder)).st_uid not in (0, os.getuid()):
                raise ConfigError(f"{folder} ({_mode_and_owner(of)}) is another account's")
        try:
            check_place(path.parent)
        except ConfigError as error:
            raise ConfigError(str(error).partition(": ")[0]) from error
        return file.read(most).decode()


def check_place(path: Path) -> None:
    """Raise ConfigError if another account can replace this path, or a folder above it, by its own."""
    for above in Path(os.path.realpath(path)).parents:
        found = os.stat(above)
        sticky = found.st_mode & stat.S_ISVTX
        writable = found.st_mode & 0o002 or (found.st_mode & 0o020 and not _only_ours(found.st_gid))
        if found.st_uid not in _trusted() or (writable and not sticky):
            raise ConfigError(
                f"{above} ({_mode_and_owner(found)}) lets other accounts replace {path}: "
                f"chmod go-w {above}, or set {BASE_VARIABLE} to a short path that is yours alone"
            )


def _trusted() -> set[int]:
    """Accounts that may own folders above ours: root, this one, and in a user namespace the overflow id."""
    trusted = {0, os.getuid()}
    with contextlib.suppress(OSError, ValueError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            trusted.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return trusted


def _only_ours(gid: int) -> bool:
    """Whether a group is this account's private one: same name, no other members (Debian's SSH rule)."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


def _mode_and_owner(found: os.stat_result) -> str:
    """Mode and owner of a file, for error messages."""
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return f"mode {stat.S_IMODE(found.st_mode):04o}, owner {owner}"
