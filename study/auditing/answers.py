"""Keeps every answer: Parquet files of many answers each, and a journal of those that are not in one yet.

An answer is a question's name (the digest of the image, and which repetition it is), the status and the body
as it came: with another path to the scores, kept answers are read again and nothing is asked twice. Each
answer is appended to the journal before the next question is sent. When the journal has ``CHUNK`` of them,
they are written as one Parquet file, which appears whole or not at all, and the journal starts anew. A
process that is killed loses at most the one question that was under way.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mipoison.config import ConfigError
from mipoison.storage.files import Storage

CHUNK = 100
"""Answers of one Parquet file."""
JOURNAL, OF, FOLDER = "journal.jsonl", "endpoint.json", "answers"
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("repetition", pa.int32()),
        ("pool", pa.string()),
        ("status", pa.int16()),
        ("body", pa.binary()),
        ("seconds", pa.float64()),
        ("asked_at", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Kept:
    """An answer.

    Attributes:
        image: :func:`name_of` the image. repetition: how often it was asked before.
        pool: what it was asked for: public, train, test, near (a copy with a changed pixel), mixture.
        status, body: of the answer. seconds: until it was there. asked_at: seconds since 1970.
    """

    image: str
    repetition: int
    pool: str
    status: int
    body: bytes
    seconds: float
    asked_at: float


def name_of(pixels_HWC: np.ndarray) -> str:
    """SHA-256 of an image's shape and pixels (uint8), in hexadecimal digits."""
    shape = "x".join(map(str, pixels_HWC.shape)).encode()
    return hashlib.sha256(shape + b":" + np.ascontiguousarray(pixels_HWC).tobytes()).hexdigest()


def any_kept(root: Path) -> bool:
    """Whether a folder that no audit has open holds an answer."""
    journal = root / JOURNAL
    return any((root / FOLDER).glob("*.parquet")) or (journal.exists() and journal.stat().st_size > 0)


class Answers:
    """The answers of one endpoint in a folder; one audit at a time may have it open.

    Args:
        root: the folder, made if it is missing. identity: of the endpoint, see ``Template.identity``; where
            no answer is kept yet, it replaces another one.

    Raises:
        ConfigError: another audit has the folder open, its answers are of another endpoint, or a file in it
            is damaged.
    """

    def __init__(self, root: Path, identity: dict[str, str]) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._journal = open(root / JOURNAL, "a+b")  # noqa: SIM115 (closed by close)
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._journal.close()
            raise ConfigError(f"{root} is in use by another audit") from error
        self._root, self._storage = root, Storage(root)
        self._kept: dict[tuple[str, int], Kept] = {}
        self._waiting: list[Kept] = []
        try:
            self._read()
            self._check(identity)
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        """Questions that were answered so far, over all runs."""
        return len(self._kept)

    def get(self, image: str, repetition: int = 0) -> Kept | None:
        """The answer to a question; None if it was not answered yet."""
        return self._kept.get((image, repetition))

    def all(self) -> list[Kept]:
        """All answers, in the order in which they came."""
        return list(self._kept.values())

    def add(self, kept: Kept) -> None:
        """Keep an answer; when this returns, killing the process does not lose it."""
        line = asdict(kept) | {"body": base64.b64encode(kept.body).decode()}
        self._kept[kept.image, kept.repetition] = kept
        self._waiting.append(
            kept
        )  # before the journal: an interrupt in between loses nothing, close writes it
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()
        if len(self._waiting) >= CHUNK:
            self._write_chunk()

    def forget(self, kept: Kept) -> None:
        """Ask this question again when it comes up: its answer stays in the files under a negative number."""
        del self._kept[kept.image, kept.repetition]
        again = -1
        while (kept.image, again) in self._kept:
            again -= 1
        self.add(Kept(**(asdict(kept) | {"repetition": again, "pool": f"unreadable:{kept.repetition}"})))

    def close(self) -> None:
        """Write what is in the journal as Parquet, and let another audit have the folder."""
        if not self._journal.closed:
            if self._waiting:
                self._write_chunk()
            self._journal.close()

    def _write_chunk(self) -> None:
        sink = io.BytesIO()
        table = pa.Table.from_pylist([asdict(kept) for kept in self._waiting], SCHEMA)
        pq.write_table(table, sink, compression="zstd")
        self._storage.write(f"{FOLDER}/{self._next:06d}.parquet", sink.getvalue())
        self._next += 1
        self._journal.truncate(0)
        self._waiting = []

    def _check(self, identity: dict[str, str]) -> None:
        path = self._root / OF
        if path.exists() and self._kept:
            try:
                before = json.loads(path.read_text())
                if not isinstance(before, dict):
                    raise ValueError("no object")
            except (OSError, ValueError, RecursionError) as error:
                raise ConfigError(
                    f"{path} is damaged ({type(error).__name__}): restore it, or give another --out"
                ) from error
            if before != identity:
                names = sorted(before.keys() | identity.keys())
                differing = [k for k in names if before.get(k) != identity.get(k)]
                verb = "differ" if len(differing) > 1 or differing == ["headers"] else "differs"
                raise ConfigError(
                    f"the answers in {self._root} are of another endpoint or request "
                    f"({', '.join(differing)} {verb}): give another --out"
                )
            return
        self._storage.write(OF, json.dumps(identity, indent=1).encode())

    def _read(self) -> None:
        self._next = 0
        for path in sorted((self._root / FOLDER).glob("*.parquet")):
            if not re.fullmatch(r"\d{6}\.parquet", path.name):
                continue
            try:
                rows = pq.read_table(path, schema=SCHEMA).to_pylist()
            except (OSError, ValueError, pa.ArrowException) as error:
                raise ConfigError(f"{path} cannot be read ({type(error).__name__}): restore it") from error
            self._next = int(path.stem) + 1
            for row in rows:
                self._keep(row)
        self._journal.seek(0)
        whole = 0
        for line in self._journal.read().splitlines(keepends=True):
            row = _row(line)
            if row is None:
                break  # torn: the process was killed while it wrote
            whole += len(line)
            if (row["image"], row["repetition"]) not in self._kept:  # else: killed before the truncation
                self._waiting.append(self._keep(row))
        self._journal.truncate(whole)
        self._journal.seek(0, os.SEEK_END)

    def _keep(self, row: dict[str, Any]) -> Kept:
        kept = Kept(**row)
        if kept.pool.startswith("unreadable:"):
            self._kept.pop((kept.image, int(kept.pool.partition(":")[2])), None)
        self._kept[kept.image, kept.repetition] = kept
        return kept


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of the journal; None if it is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        row: dict[str, Any] = json.loads(line)
        row["body"] = base64.b64decode(row["body"], validate=True)
        Kept(**row)
    except (ValueError, KeyError, TypeError):
        return None
    return row
