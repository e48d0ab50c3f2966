"""Reads and writes whole files on a local disk: only regular files are read, and writes are atomic."""

from __future__ import annotations

import errno
import logging
import os
import stat
import uuid
from pathlib import Path
from typing import BinaryIO

from mipoison.storage.failures import UnfitError

log = logging.getLogger(__name__)


def check_size(size: int, most: int) -> None:
    """Raise UnfitError if a file of ``size`` bytes is larger than ``most``."""
    if size > most:
        raise UnfitError(f"{size} bytes, at most {most} are read")


def read_file(path: str, most: int) -> bytes | None:
    """A file's bytes; None for a folder.

    It is opened without blocking, since opening a pipe would otherwise wait for a writer.

    Args:
        path: the file; the caller has checked where its links lead. most: largest number of bytes.

    Raises:
        UnfitError: it is not a regular file, or larger.
    """
    try:
        held = os.open(os.path.realpath(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.ELOOP):  # a socket, a device, a new link
            raise UnfitError("not a file") from error
        raise
    try:
        found = os.fstat(held)
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise UnfitError("not a file")
        check_size(found.st_size, most)
        with open(held, "rb", closefd=False) as file:
            return file.read(found.st_size + 1)
    finally:
        os.close(held)


def write_file(target: Path, data: bytes, root: Path) -> None:
    """Write a whole file atomically.

    Below ``root``, a folder in the place of the file, or a file in the place of a folder, is renamed to a
    hidden name, with a warning in the log.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        _make_room(target, root)
        with _create(temporary) as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(target.parent)


def _create(path: Path) -> BinaryIO:
    """Open a new file and make its folders, again if another process removes an empty one meanwhile."""
    for _ in range(10):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return open(path, "wb")
        except FileNotFoundError:
            continue
    raise OSError(errno.EBUSY, "its folder is removed again and again", str(path.parent))


def _make_room(target: Path, root: Path) -> None:
    """Rename a folder in the place of the file, or a file in the place of one of its folders."""
    for place in (target, *target.parents):
        if place == root or place == place.parent:
            return
        wrong = place.is_dir() and not place.is_symlink() if place == target else place.is_file()
        if wrong:
            aside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.aside")
            place.rename(aside)
            log.warning("%s is in the way, moved to %s", place, aside)


def _flush_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives a power failure.

    Some file systems cannot flush folders; there it does nothing.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        log.debug("%s cannot be flushed: %s", folder, error)
    finally:
        os.close(descriptor)
