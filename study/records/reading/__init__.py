"""Validation of a study's files before their content is used: one function for each kind of file.

Whoever can write to a storage can put any bytes there, and disks fail. The parser of a file raises
:class:`Unreadable` if it is invalid; the caller then leaves the file out and logs one line
(:func:`leave_out`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from mipoison.storage.files import Storage, UnfitError
from study.runtime.plain import visible_line

log = logging.getLogger("study.left_out")


class Unreadable(ValueError):
    """A file is invalid. The message is one line."""


MAX_FILE_BYTES = 2**29
"""Largest Parquet file that is read. The compact copy of 2,500 trials has some ten million bytes."""


def fetch(storage: Storage, name: str, most: int = MAX_FILE_BYTES) -> bytes | None:
    """The bytes of a file, not validated yet; None if it does not exist.

    Raises:
        Unreadable: it is a pipe or a device, or larger than ``most`` bytes.
    """
    try:
        return storage.read(name, most)
    except UnfitError as error:
        raise Unreadable(str(error.__cause__ or error)) from error


def leave_out(name: str, why: object) -> None:
    """Log a warning that a file, or a part of one, is left out."""
    log.warning("%s is left out: %s", visible_line(name, 300), visible_line(why, 300))


class _AnnounceOnce(logging.Handler):
    def __init__(self, announce: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._announce, self._announced = announce, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._announced:  # a file that is read twice is announced once
            self._announced.add(text)
            self._announce(text)


@contextlib.contextmanager
def announce_left_out(announce: Callable[[str], None]) -> Iterator[None]:
    """Call ``announce`` with each distinct line of :func:`leave_out`, whatever the logger's level."""
    handler, level = _AnnounceOnce(announce), log.level
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
