"""What a study's folder holds, judged before it is used: one function for each kind of file.

Whoever can write to a storage can put anything there, and disks fail. A file that is not what its name says
is :class:`Unreadable`; its reader leaves it out and says so in one line (:func:`leave_out`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from mipoison.storage.files import Storage, UnfitError
from study.runtime.plain import visible_line

log = logging.getLogger("study.left_out")


class Unreadable(ValueError):
    """A file is not what its name says; the message is one line."""


MAX_FILE_BYTES = 2**29
"""Of a Parquet file: the copy of 2,500 trials has some ten million."""


def fetch(storage: Storage, name: str, most: int = MAX_FILE_BYTES) -> bytes | None:
    """A file's bytes, to be judged; None if there is none.

    Raises:
        Unreadable: it is a pipe or a device, or of more bytes than any such file has.
    """
    try:
        return storage.read(name, most)
    except UnfitError as error:
        raise Unreadable(str(error.__cause__ or error)) from error


def leave_out(name: str, why: object) -> None:
    """Say that a file, or a part of one, is left out."""
    log.warning("%s is left out: %s", visible_line(name, 300), visible_line(why, 300))


class _Teller(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say, self._said = say, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said:  # a file that is read twice is told of once
            self._said.add(text)
            self._say(text)


@contextlib.contextmanager
def saying(say: Callable[[str], None]) -> Iterator[None]:
    """Whoever reads hears each line of :func:`leave_out` once, whatever the level of the logs."""
    teller, level = _Teller(say), log.level
    log.addHandler(teller)
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(teller)
        log.setLevel(level)
