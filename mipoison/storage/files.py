"""Files on a local disk, over NFS or in an object store, by one small interface over pyarrow's file systems.

A reader sees a whole file or none. Local writes go to a unique temporary name, are flushed to the disk and
renamed into place; an object appears once it has been uploaded. A storage that is full or away for a while is
waited for (see :data:`PATIENCE`); any other failure is a :class:`StorageError` of one line, at once.
"""

from __future__ import annotations

import copy
import errno
import logging
import math
import os
import random
import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import fs

from mipoison.config import ConfigError
from mipoison.storage.local import StorageError as StorageError
from mipoison.storage.local import UnfitError as UnfitError
from mipoison.storage.local import check_size, read_file, write_file
from mipoison.storage.s3 import line, open_s3, refuse_credentials, shown

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = "MIPOISON_STORAGE_PATIENCE_S"
"""Environment variable: seconds for which an operation on a full or unreachable storage is repeated."""
DEFAULT_PATIENCE_S = 180.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
_PASSING_ERRNO = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.EAGAIN,
    errno.EINTR, errno.EBUSY, errno.ENOTCONN,
}  # fmt: skip
_PASSING_AWS = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|THROTTL|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE|INTERNAL_FAILURE"
    r"|HTTP status (408|429|5\d\d)"
)


MAX_BYTES = 2**32
"""Of a file that is read whole: a file may say that it has any size, and take no room on the disk."""


class Storage:
    """A root folder: a local path, or a URI of a file system that pyarrow knows (``s3://bucket/prefix``).

    ``s3://bucket/prefix?endpoint_override=localhost:9000&scheme=http&region=us-east-1`` names another server
    than Amazon's, as $AWS_ENDPOINT_URL does. Credentials come from the environment, a profile or the
    machine's role; in the URI they are refused, since they would land in records and logs.

    Attributes:
        root: the root as another process or machine can open it: an absolute path, or a URI with endpoint and
            region. local: whether it is a folder of this machine. patience_s: see :data:`PATIENCE`.

    Raises:
        ConfigError: if the URI is not understood or holds credentials, or a name would leave the root.
    """

    def __init__(self, root: str | Path, patience_s: float | None = None) -> None:
        self.root = str(root)
        self.patience_s = _patience() if patience_s is None else patience_s
        if self.root.startswith("s3://"):
            self._fs, self._path, self.root = open_s3(self.root)
        elif "://" in self.root:
            refuse_credentials(self.root)
            try:
                self._fs, self._path = fs.FileSystem.from_uri(self.root)
            except Exception as error:
                reason = line(error).replace(self.root, shown(self.root))
                raise ConfigError(f"storage {shown(self.root)} is not understood: {reason}") from error
        else:
            try:
                self._path = self.root = str(Path(self.root).expanduser().resolve())
            except (OSError, RuntimeError, ValueError) as error:
                raise ConfigError(f"storage {self.root!r} is not understood: {line(error)}") from error
            self._fs = fs.LocalFileSystem()
        if not self._path:
            raise ConfigError(f"storage {self.root!r} names no bucket or folder: write s3://bucket/prefix")
        self.local = isinstance(self._fs, fs.LocalFileSystem)

    def below(self, folder: str) -> Storage:
        """The storage whose root is a folder of this one."""
        return Storage(self.where(folder), self.patience_s)

    def where(self, name: str) -> str:
        """A name's absolute path or URI: for people, and for other tools."""
        self.path(name)
        base, mark, query = self.root.partition("?") if "://" in self.root else (self.root, "", "")
        return f"{base.rstrip('/')}/{name}{mark}{query}"

    def path(self, name: str) -> str:
        """Full path of a name under the root; neither names nor links of the file system lead out of it.

        Nor does a link lead from one of the folders directly below the root into another.
        """
        parts = name.split("/")
        if (
            not name
            or name.startswith("/")
            or "\\" in name
            or "\0" in name
            or any(p in ("", ".", "..") for p in parts)
        ):
            raise ConfigError(f"name {name!r} is not a plain relative path below {self.root}")
        path = f"{self._path.rstrip('/')}/{name}"
        if self.local:
            root, top, real = (Path(os.path.realpath(p)) for p in (self._path, self._top(name), path))
            if not (real.is_relative_to(root) and top.is_relative_to(root)):
                raise ConfigError(f"name {name!r} leads outside {self.root} by a link: remove the link")
            if not real.is_relative_to(top):
                raise ConfigError(f"name {name!r} leads through a link out of {top}: remove the link")
        return path

    def _top(self, name: str) -> str:
        """The topmost folder of a name: a study's, whose files are its own and no other's."""
        return os.path.join(self._path, name.split("/")[0]) if "/" in name else self._path

    def _path_to_write(self, name: str) -> str:
        """As :meth:`path`; no folder on the way is a link, not even to another place below the root.

        A file that is a link, or has other names (hard links), is replaced: what it led to stays as it is.
        """
        path = self.path(name)
        folder = Path(path).parent
        while self.local and folder != Path(self._path) and folder != folder.parent:
            if folder.is_symlink():
                raise ConfigError(f"name {name!r} leads through a link: {folder}; remove the link")
            folder = folder.parent
        return path

    def local_path(self, name: str) -> Path | None:
        """The path of a name on this machine, or None in an object store."""
        return Path(self.path(name)) if self.local else None

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file atomically, replacing an older one.

        Raises:
            ConfigError: a folder on the way is a link. StorageError: not within the patience.
        """
        path = self._path_to_write(name)
        self._patiently(f"write {name}", lambda: self._write(path, data))

    def _write(self, path: str, data: bytes) -> None:
        if not self.local:
            with self._fs.open_output_stream(path) as stream:
                stream.write(data)
            return
        write_file(Path(path), data, Path(self._path))

    def read(self, name: str, most: int = MAX_BYTES) -> bytes | None:
        """The file's bytes, or None if there is none.

        Raises:
            UnfitError: it is no file, or has more than so many bytes.
        """
        path = self.path(name)
        return self._patiently(f"read {name}", lambda: self._read(path, most))

    def _read(self, path: str, most: int = MAX_BYTES) -> bytes | None:
        try:
            return read_file(path, most) if self.local else self._read_object(path, most)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def _read_object(self, path: str, most: int) -> bytes:
        """The whole object in one request, and again if it was replaced since its size was asked.

        Reading it as a stream takes several requests, each answered from what is there by then; and where an
        object became shorter, pyarrow hands out memory that was never written.
        """
        while True:
            with self._fs.open_input_file(path) as file:
                before, size = file.metadata(), file.size()
                check_size(size, most)
                data = file.read_at(size, 0) if size else b""
            with self._fs.open_input_file(path) as file:
                if file.metadata() == before and len(data) == size:
                    return bytes(data)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        path = self.path(name)

        def delete() -> None:
            with suppress(FileNotFoundError):
                self._fs.delete_file(path)

        self._patiently(f"delete {name}", delete)

    def touch(self, name: str) -> None:
        """Renew a file's time of modification, by the storage's own clock; needs no room on a disk.

        Raises:
            StorageError: at once; FileNotFoundError is one, too, if there is no such file.
        """
        path = self.path(name)
        try:
            if self.local:
                os.utime(path)
                return
            data = self._read(path)
            if data is None:
                raise FileNotFoundError(errno.ENOENT, "no such object", name)
            self._write(path, data)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"storage {self.root!r}: cannot touch {name}: {line(error)}") from error

    def modified(self, folder: str) -> dict[str, float]:
        """Name -> time of modification (seconds since 1970, by the storage's clock) of a folder's files."""
        return {
            f"{folder}/{i.base_name}": i.mtime.timestamp() for i in self._files(folder) if i.mtime is not None
        }

    def names(self, folder: str) -> list[str]:
        """Sorted names (below the root) of the finished files directly in a folder, no temporary ones."""
        return sorted(f"{folder}/{i.base_name}" for i in self._files(folder))

    def _files(self, folder: str) -> list[Any]:
        """Files directly in a folder; neither hidden ones (temporary names) nor links that lead outside."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        try:
            found = self._patiently(f"list {folder}", lambda: self._fs.get_file_info(selector))
        except StorageError as error:
            if isinstance(error.__cause__, NotADirectoryError):  # a file where a folder belongs
                log.warning("%s is a file, not a folder", folder)
                return []
            raise
        return [
            i
            for i in found
            if i.type == fs.FileType.File
            and not i.base_name.startswith(".")
            and not (self.local and Path(i.path).is_symlink() and not self._inside(f"{folder}/{i.base_name}"))
        ]

    def _inside(self, name: str) -> bool:
        try:
            self.path(name)
        except ConfigError as error:
            log.warning("%s", error)
            return False
        return True

    def check_writable(self) -> None:
        """Write, read back and delete a probe; ConfigError naming the path if that fails within seconds."""
        name, probe = f"probe-{uuid.uuid4().hex}", copy.copy(self)
        probe.patience_s = min(self.patience_s, 3.0)
        try:
            probe.write(name, b"ok")
            ok = probe.read(name) == b"ok"
            probe.delete(name)
        except StorageError as error:
            raise ConfigError(f"storage {self.root!r} cannot be written: {line(error.__cause__)}") from error
        if not ok:
            raise ConfigError(f"storage {self.root!r} does not return what was written to it")

    def _patiently(self, what: str, operation: Callable[[], T]) -> T:
        """Run an operation; what may pass (full disk, lost connection) is tried again with growing waits."""
        began = waited = 0.0
        wait = FIRST_WAIT_S
        while True:
            try:
                return operation()
            except UnfitError as error:
                raise UnfitError(f"storage {self.root!r}: cannot {what}: {error}") from error
            except OSError as error:
                now = time.monotonic()
                if not waited:
                    began = now
                reason, passing = line(error), may_pass(error)
                left = self.patience_s - (now - began)
                if not passing or left <= 0:
                    lasted = f" (for {now - began:.0f} s)" if passing and waited else ""
                    raise StorageError(f"storage {self.root!r}: cannot {what}{lasted}: {reason}") from error
                if not waited:
                    # An error, not a warning: a person who watches should know why nothing moves.
                    log.error("storage: cannot %s: %s; trying again for %.0f s", what, reason, left)
                pause = min(wait * random.SystemRandom().uniform(0.75, 1.25), left)
                time.sleep(pause)
                waited += pause
                wait = min(2 * wait, LONGEST_WAIT_S)


def storage_failure(error: BaseException | None) -> str | None:
    """The storage's message if a storage failure is behind an error, of this process or of a worker's."""
    seen: list[BaseException] = []
    queue = [error]
    while queue:
        e = queue.pop()
        if e is None or e in seen:
            continue
        seen.append(e)
        if isinstance(e, StorageError):
            # What a worker raised is wrapped with its trace; the last line is the message.
            return str(e).strip().splitlines()[-1].partition("StorageError: ")[2] or str(e)
        queue += [e.__cause__, getattr(e, "cause", None)]
        queue += list(dict(getattr(e, "worker_failures", None) or {}).values())
    return None


def may_pass(error: OSError) -> bool:
    """Whether an error may go away by itself: a full disk, a lost connection, a server that is busy."""
    return error.errno in _PASSING_ERRNO or bool(_PASSING_AWS.search(str(error)))


def _patience() -> float:
    text = os.environ.get(PATIENCE, "")
    try:
        value = float(text) if text else DEFAULT_PATIENCE_S
    except ValueError:
        value = math.nan
    if not (0 <= value < math.inf):
        raise ConfigError(f"{PATIENCE} = {text!r}: must be a number of seconds, at least 0")
    return value
