"""Whole files of a local disk: read only where they are files, written beside their place and renamed."""

from __future__ import annotations

import errno
import logging
import os
import stat
import uuid
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)


class StorageError(OSError):
    """A storage failed for good, or for longer than it is waited for; the message is one line."""


class UnfitError(StorageError):
    """What bears a name is no file (a pipe, a device), or a larger one than its reader takes."""


def check_size(size: int, most: int) -> None:
    if size > most:
        raise UnfitError(f"{size} bytes, at most {most} are read")


def read_file(path: str, most: int) -> bytes | None:
    """A file's bytes; None for a folder. Opening a pipe would wait for whoever writes to it.

    Args:
        path: links in it have been judged, and are resolved. most: bytes.

    Raises:
        UnfitError: it is no file, or larger.
    """
    try:
        held = os.open(os.path.realpath(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.ELOOP):  # a socket, a device, a link since
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
    """Write a whole file atomically; what is in its way below the root is moved aside."""
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
    """A new file and its folders, even if another process just removes an empty one of them."""
    for _ in range(10):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return open(path, "wb")
        except FileNotFoundError:
            continue
    raise OSError(errno.EBUSY, "its folder is removed again and again", str(path.parent))


def _make_room(target: Path, root: Path) -> None:
    """Move a folder that stands where a file belongs, or a file where a folder does, aside."""
    for place in (target, *target.parents):
        if place == root or place == place.parent:
            return
        wrong = place.is_dir() and not place.is_symlink() if place == target else place.is_file()
        if wrong:
            aside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.aside")
            place.rename(aside)
            log.warning("%s is in the way, moved to %s", place, aside)


def _flush_folder(folder: Path) -> None:
    """Make a rename outlast a power cut; some file systems know no fsync of a folder."""
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
