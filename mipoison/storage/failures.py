"""Errors of a storage: which of them may be temporary, and whether one is the cause of another error."""

from __future__ import annotations

import errno
import re

_TEMPORARY_ERRNO = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.EAGAIN,
    errno.EINTR, errno.EBUSY, errno.ENOTCONN,
}  # fmt: skip
_TEMPORARY_AWS = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|THROTTL|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE|INTERNAL_FAILURE"
    r"|HTTP status (408|429|5\d\d)"
)


class StorageError(OSError):
    """A storage operation failed, after retries if the failure may be temporary; the message is one line."""


class UnfitError(StorageError):
    """A name leads to something other than a regular file (a pipe, a device), or to a file that is too
    large."""


def storage_failure(error: BaseException | None) -> str | None:
    """The message of the :class:`StorageError` that caused an error, in this process or in a worker.

    Returns:
        The message, or None if no storage error is among the causes.
    """
    seen: list[BaseException] = []
    queue = [error]
    while queue:
        e = queue.pop()
        if e is None or e in seen:
            continue
        seen.append(e)
        if isinstance(e, StorageError):
            # An exception from a worker contains its traceback; the last line is the message.
            return str(e).strip().splitlines()[-1].partition("StorageError: ")[2] or str(e)
        queue += [e.__cause__, getattr(e, "cause", None)]
        queue += list(dict(getattr(e, "worker_failures", None) or {}).values())
    return None


def may_be_temporary(error: OSError) -> bool:
    """Whether an error may be temporary: a full disk, a lost connection, a busy server."""
    return error.errno in _TEMPORARY_ERRNO or bool(_TEMPORARY_AWS.search(str(error)))
