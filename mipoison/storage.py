"""Files on a local disk or in an object store, by one small interface over pyarrow's file systems.

Local writes go to a unique temporary name, are flushed to the disk and renamed into place: a reader sees a
whole file or none.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from pyarrow import fs

from mipoison.config import ConfigError


class Storage:
    """A root folder: a local path, or a URI of a file system that pyarrow knows (``s3://bucket/prefix``).

    Raises:
        ConfigError: if the URI is not understood, or a name would leave the root.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        try:
            if "://" in self.root:
                self._fs, self._path = fs.FileSystem.from_uri(self.root)
            else:
                self._path = str(Path(self.root).expanduser().resolve())
                self._fs = fs.LocalFileSystem()
        except Exception as error:
            raise ConfigError(f"storage {self.root!r} is not understood: {error}") from error
        if not self._path:
            raise ConfigError(f"storage {self.root!r} names no bucket or folder: write s3://bucket/prefix")
        self.local = isinstance(self._fs, fs.LocalFileSystem)

    def path(self, name: str) -> str:
        """Full path of a name under the root; names cannot leave it."""
        parts = name.split("/")
        if (
            not name
            or name.startswith("/")
            or "\\" in name
            or "\0" in name
            or any(p in ("", ".", "..") for p in parts)
        ):
            raise ConfigError(f"name {name!r} is not a plain relative path below {self.root}")
        return f"{self._path.rstrip('/')}/{name}"

    def local_path(self, name: str) -> Path | None:
        """The path of a name on this machine, or None in an object store."""
        return Path(self.path(name)) if self.local else None

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file atomically, replacing an older one."""
        path = self.path(name)
        if not self.local:
            with self._fs.open_output_stream(path) as stream:
                stream.write(data)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        """The file's bytes, or None if there is none."""
        path = self.path(name)
        if self._fs.get_file_info(path).type != fs.FileType.File:
            return None
        with self._fs.open_input_stream(path) as stream:
            return stream.read()

    def names(self, folder: str) -> list[str]:
        """Sorted names (below the root) of the finished files directly in a folder, no temporary ones."""
        info = self._fs.get_file_info(fs.FileSelector(self.path(folder), allow_not_found=True))
        return sorted(
            f"{folder}/{i.base_name}"
            for i in info
            if i.type == fs.FileType.File and not i.base_name.startswith(".")
        )

    def check_writable(self) -> None:
        """Write, read back and delete a probe; ConfigError naming the path if that fails."""
        name = f"probe-{uuid.uuid4().hex}"
        try:
            self.write(name, b"ok")
            ok = self.read(name) == b"ok"
            self._fs.delete_file(self.path(name))
        except OSError as error:
            raise ConfigError(f"storage {self.root!r} cannot be written: {error}") from error
        if not ok:
            raise ConfigError(f"storage {self.root!r} does not return what was written to it")
