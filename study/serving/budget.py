"""Counts each client's queries in an SQLite file, and refuses those beyond the budget.

Queries are counted before they are answered, in one statement that is on the disk when it returns: a server
that is killed has counted whatever it answered.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from mipoison.config import ConfigError

WAIT_S = 10.0
"""How long a statement waits for another process that writes to the file."""
_TABLE = """
CREATE TABLE IF NOT EXISTS queries (client TEXT PRIMARY KEY, spent INTEGER NOT NULL, since REAL NOT NULL)
"""
_SPEND = """
INSERT INTO queries (client, spent, since) SELECT :client, :n, :now WHERE :n <= :most
ON CONFLICT (client) DO UPDATE SET
    spent = CASE WHEN since <= :over THEN :n ELSE spent + :n END,
    since = CASE WHEN since <= :over THEN :now ELSE since END
WHERE CASE WHEN since <= :over THEN :n ELSE spent + :n END <= :most
RETURNING spent, since
"""


@dataclass(frozen=True)
class Spent:
    """Queries that were counted.

    Attributes:
        left: how many the client has left. since: when its window began, seconds since 1970: the window that
            :meth:`QueryBudget.give_back` credits.
    """

    left: int
    since: float


@dataclass(frozen=True)
class OverBudget(Exception):
    """A client asked for more queries than it has left.

    Attributes:
        left: queries left. again_s: seconds until the budget is renewed; None: never.
    """

    left: int
    again_s: int | None


class QueryBudget:
    """Queries per client, kept in a file. Threads and processes may share it.

    Args:
        path: the SQLite file, made (0600) if it is missing.
        most: queries that a client has, at least 1.
        renewed_s: after so many seconds since the first counted query the count begins anew; None: never.

    Raises:
        ConfigError: the file cannot be written, or is something else.
    """

    def __init__(self, path: Path, most: int, renewed_s: float | None = None) -> None:
        self.path, self.most, self.renewed_s = path, most, renewed_s
        self._lock = threading.Lock()
        try:
            path.touch(mode=0o600)
            self._file = sqlite3.connect(
                path, timeout=WAIT_S, isolation_level=None, check_same_thread=False
            )  # no implicit transactions: each statement is one
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")  # on the disk when a statement returns
            self._file.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"queries cannot be counted in {path} ({error}): give a file that can be written "
                "(--query-store)"
            ) from error

    def spend(self, client: str, n: int) -> Spent:
        """Count n queries of a client; return how many it has left, and its window.

        Raises:
            OverBudget: it has fewer than n left; nothing was counted.
            sqlite3.Error: they could not be counted, and must not be answered.
        """
        now = time.time()
        over = -math.inf if self.renewed_s is None else now - self.renewed_s
        values = {"client": client, "n": n, "most": self.most, "now": now, "over": over}
        with self._lock:
            row = self._file.execute(_SPEND, values).fetchone()
            if row is not None:
                return Spent(self.most - int(row[0]), row[1])
        raise self._over(client, now, over)

    def check(self, client: str) -> None:
        """Count nothing; raise OverBudget if the client has no query left."""
        now = time.time()
        over = self._over(client, now, -math.inf if self.renewed_s is None else now - self.renewed_s)
        if over.left == 0:
            raise over

    def _over(self, client: str, now: float, renewed: float) -> OverBudget:
        """What the client has left, and when it has more. Windows that began by ``renewed`` are over."""
        with self._lock:
            found = self._file.execute(
                "SELECT spent, since FROM queries WHERE client = ?", (client,)
            ).fetchone()
        spent, since = (0, now) if found is None or found[1] <= renewed else found
        again = None if self.renewed_s is None else max(1, math.ceil(since + self.renewed_s - now))
        return OverBudget(max(0, self.most - spent), again)

    def give_back(self, client: str, n: int, since: float) -> None:
        """Undo :meth:`spend` for queries of which nothing was released.

        Args:
            since: the window that they were counted in. If it is over, nothing changes.
        """
        with self._lock:
            self._file.execute(
                "UPDATE queries SET spent = max(0, spent - ?) WHERE client = ? AND since = ?",
                (n, client, since),
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._file.close()
