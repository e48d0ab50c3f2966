"""Files on a local disk, on NFS or in an object store, through pyarrow's file systems.

A reader sees a whole file or none: local files are written under a unique temporary name, flushed to the disk
and renamed, and an object becomes visible when it has been uploaded completely. If a storage is full or
unreachable, operations are retried for some time (see :data:`PATIENCE`). Other failures raise a one-line
:class:`StorageError` at once.
"""

from __future__ import annotations

import copy
import errno
import logging
import math
import os
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import fs

from mipoison.config import ConfigError
from mipoison.storage.failures import StorageError as StorageError
from mipoison.storage.failures import UnfitError as UnfitError
from mipoison.storage.failures import may_be_temporary
from mipoison.storage.failures import storage_failure as storage_failure
from mipoison.storage.local import check_size, read_file, write_file
from mipoison.storage.s3 import line, open_s3, refuse_credentials, shown

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = "MIPOISON_STORAGE_PATIENCE_S"
"""Environment variable: seconds for which an operation on a full or unreachable storage is retried."""
DEFAULT_PATIENCE_S = 180.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
MAX_BYTES = 2**32
"""Largest file that is read. A sparse file can have any size without taking room on the disk, and reading it
would exhaust the memory."""


class Storage:
    """The files below a root: a local folder, or a URI that pyarrow understands (``s3://bucket/prefix``).

    ``s3://bucket/prefix?endpoint_override=localhost:9000&scheme=http&region=us-east-1`` selects another
    server than Amazon's, as does $AWS_ENDPOINT_URL. Credentials come from the environment, a profile or the
    machine's role. A URI with credentials is refused, because records and logs contain it.

    All methods take names, which are relative paths below the root separated by ``/``.

    Args:
        root: local path or URI. patience_s: see :data:`PATIENCE`; None means the environment variable, or
            180 s.

    Attributes:
        root: the root in a form that other processes and machines can open: an absolute path, or a URI with
            endpoint and region.
        local: whether the root is a folder of this machine.
        patience_s: seconds for which operations are retried.

    Raises:
        ConfigError: the URI is malformed or contains credentials, or (in methods) a name leads out of the
            root.
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
        """A storage whose root is a folder of this one."""
        return Storage(self.where(folder), self.patience_s)

    def where(self, name: str) -> str:
        """The absolute path or URI of a name, for people and other tools."""
        self.path(name)
        base, mark, query = self.root.partition("?") if "://" in self.root else (self.root, "", "")
        return f"{base.rstrip('/')}/{name}{mark}{query}"

    def path(self, name: str) -> str:
        """Full path of a name, as pyarrow's file system takes it.

        Raises:
            ConfigError: the name, or a link on its path, leads out of the root, or from one folder directly
                below the root (e.g. one study's) into another.
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
        """The topmost folder of a name, e.g. that of a study; its files must not lead to those of another."""
        return os.path.join(self._path, name.split("/")[0]) if "/" in name else self._path

    def _path_to_write(self, name: str) -> str:
        """As :meth:`path`, but no folder on the path may be a link, not even to a place below the root.

        If the file itself is a link, or has hard links, writing replaces it and leaves the target unchanged.
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
            ConfigError: a folder on the path is a link. StorageError: writing failed, after retries.
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
        """The file's bytes, or None if there is no such file.

        Args:
            most: largest number of bytes.

        Raises:
            UnfitError: it is not a regular file, or larger. StorageError: reading failed, after retries.
        """
        path = self.path(name)
        return self._patiently(f"read {name}", lambda: self._read(path, most))

    def _read(self, path: str, most: int = MAX_BYTES) -> bytes | None:
        try:
            return read_file(path, most) if self.local else self._read_object(path, most)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def _read_object(self, path: str, most: int) -> bytes:
        """Read a whole object in one request, and again if it was replaced after its size was determined.

        Reading it as a stream takes several requests, which may return parts of different versions. If an
        object has become shorter, pyarrow returns uninitialised memory for the rest.
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
        """Delete a file if it exists."""
        path = self.path(name)

        def delete() -> None:
            with suppress(FileNotFoundError):
                self._fs.delete_file(path)

        self._patiently(f"delete {name}", delete)

    def touch(self, name: str) -> None:
        """Set a file's time of modification to now, by the storage's clock; takes no room on a disk.

        Raises:
            FileNotFoundError: there is no such file. StorageError: it failed; it is not retried.
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
        """Times of modification of the files in a folder, by name: seconds since 1970 by the storage's
        clock."""
        return {
            f"{folder}/{i.base_name}": i.mtime.timestamp() for i in self._files(folder) if i.mtime is not None
        }

    def names(self, folder: str) -> list[str]:
        """Sorted names (relative to the root) of the files directly in a folder, without temporary ones."""
        return sorted(f"{folder}/{i.base_name}" for i in self._files(folder))

    def _files(self, folder: str) -> list[Any]:
        """Files directly in a folder, without hidden (temporary) ones and links that lead out of the root."""
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
        """Check that a file can be written, read back and deleted; failures are retried for 3 s at most.

        Raises:
            ConfigError: one of these failed; the message names the root.
        """
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
        """Run an operation; retry it with growing waits after errors that may be temporary.

        Raises:
            StorageError: another error, or the retries took longer than ``patience_s``.
        """
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
                reason, temporary = line(error), may_be_temporary(error)
                left = self.patience_s - (now - began)
                if not temporary or left <= 0:
                    lasted = f" (for {now - began:.0f} s)" if temporary and waited else ""
                    raise StorageError(f"storage {self.root!r}: cannot {what}{lasted}: {reason}") from error
                if not waited:
                    # Logged as an error, because nothing else tells a person why the program has stopped.
                    log.error("storage: cannot %s: %s; trying again for %.0f s", what, reason, left)
                pause = min(wait * random.SystemRandom().uniform(0.75, 1.25), left)
                time.sleep(pause)
                waited += pause
                wait = min(2 * wait, LONGEST_WAIT_S)


def _patience() -> float:
    text = os.environ.get(PATIENCE, "")
    try:
        value = float(text) if text else DEFAULT_PATIENCE_S
    except ValueError:
        value = math.nan
    if not (0 <= value < math.inf):
        raise ConfigError(f"{PATIENCE} = {text!r}: must be a number of seconds, at least 0")
    return value
