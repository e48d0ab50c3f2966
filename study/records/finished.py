"""Loads a finished study from its folder, a compact copy or an object store, and writes compact copies."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mipoison.config import ConfigError
from mipoison.metrics.excess import MARGIN
from mipoison.plugins import register_stand_ins
from mipoison.storage.files import Storage
from study.records.constraints import Constraints
from study.records.curves import CURVES, curves_bytes, read_curves
from study.records.reading import Unreadable, fetch, leave_out
from study.records.reading.documents import MAX_JSON_BYTES, about_to_show
from study.records.reading.episodes import compact_of
from study.records.schema import episode_schema, part_of_schema, to_frame
from study.records.store import STUDY_FILE, Records, check_name
from study.runtime.plain import visible_line

EPISODES, FRESH = "episodes.parquet", "fresh.parquet"
KEPT = ("settings", "versions", "started", "margin", "plugins")
"""Keys of study.json that a compact copy keeps. It is made to be published: the command line, which may hold
paths of a machine, is left out."""


MOST_BYTES = 1_500_000
"""Of each file of a compact copy: that of a file in the repository."""


class NoStudyError(ConfigError):
    """A folder without a study."""


@dataclass(frozen=True)
class StoredStudy:
    """A finished study, in memory.

    Attributes:
        about: the content of ``study.json``.
        episodes: records of the search. fresh: those on held-out seeds, None without a re-evaluation.
        storage, folder: the study's files are ``<folder>/<name>`` in that storage.
    """

    name: str
    about: dict[str, Any]
    episodes: pd.DataFrame
    fresh: pd.DataFrame | None
    storage: Storage
    folder: str

    @property
    def constraints(self) -> Constraints:
        """What a feasible setting may cost in utility; the default for the paper's tables, which lack it."""
        return Constraints.stored(self.about.get("settings", {}))

    @property
    def margin(self) -> float:
        """The accepted excess leakage of its last report; the default for studies that did not store it."""
        return float(self.about.get("margin", MARGIN))

    @property
    def title_info(self) -> dict[str, object]:
        """What captions of tables say of the study: its name and scale."""
        return {"study": self.name, "scale": self.about.get("settings", {}).get("scale")}

    def read(self, name: str) -> bytes | None:
        """The bytes of one of the study's files; None if it does not exist.

        Raises:
            Unreadable: it is not a regular file, or larger than any file of a study.
        """
        return fetch(self.storage, f"{self.folder}/{name}")


def load(folder: Path | str, *, wanted: Callable[[str], bool] | None = None) -> StoredStudy:
    """Read a study's folder or a compact copy, on disk or in an object store (``s3://bucket/prefix/study``).

    Args:
        wanted: whether a column of the records, given by name, is read; None for all columns.

    Raises:
        NoStudyError: there is no study. ConfigError: it is damaged, or has no finished episode.
    """
    place = str(folder)
    if "://" in place:
        base, mark, query = place.partition("?")
        root, _, name = base.rstrip("/").rpartition("/")
        root += mark + query
    else:
        path = Path(folder).expanduser().resolve()
        root, name, place = str(path.parent), path.name, str(path)
    storage = Storage(root)
    try:
        stored = fetch(storage, f"{name}/{STUDY_FILE}", MAX_JSON_BYTES)
        if stored is None:
            raise NoStudyError(f"{place}: no study here ({STUDY_FILE} is missing)")
        about = about_to_show(stored, f"{name}/{STUDY_FILE}")
    except Unreadable as error:
        raise ConfigError(f"{place}: {STUDY_FILE} is damaged ({error})") from error
    for wrong in register_stand_ins(about.get("plugins")):
        leave_out(f"{name}/{STUDY_FILE}: plugins", wrong)
    schema = episode_schema() if wanted is None else part_of_schema(wanted)
    episodes = compact_episodes(storage, f"{name}/{EPISODES}", schema)
    if episodes is not None and len(episodes):
        fresh = compact_episodes(storage, f"{name}/{FRESH}", schema)
    else:
        episodes = Records(storage, name).read(schema.names)
        fresh = Records(storage, f"{name}.fresh").read(schema.names)
    if episodes.empty:
        raise ConfigError(f"{place}: no finished episode")
    fresh = fresh if fresh is not None and len(fresh) else None
    return StoredStudy(_name(about, name), about, episodes, fresh, storage, name)


def compact_episodes(storage: Storage, name: str, schema: pa.Schema | None = None) -> pd.DataFrame | None:
    """The episodes in a file of a compact copy; None if the file does not exist or cannot be read.

    Args:
        schema: the columns to read; None for all.
    """
    try:
        data = fetch(storage, name)
        return None if data is None else to_frame(compact_of(data, schema or episode_schema(), name))
    except Unreadable as error:
        leave_out(name, error)
        return None


def _name(about: Mapping[str, Any], folder: str) -> str:
    """The name in ``study.json``, or the folder's name if that is not a valid one."""
    try:
        return check_name(about.get("study", folder))
    except ConfigError as error:
        leave_out(f"{folder}/{STUDY_FILE}: study", error)
        return visible_line(folder)


def write_compact(study: StoredStudy, out: Path, most: int = MOST_BYTES) -> None:
    """Write a compact copy: one Parquet file of episodes, one of the fresh ones, the learning curves, and
    ``study.json``. Records are numbers and words: no image, and no vector of one, is among them.

    Args:
        most: bytes of a file.

    Raises:
        ConfigError: a file would be larger; nothing is written.
    """
    files = {
        name: small_parquet(frame.dropna(axis=1, how="all"))
        for name, frame in ((EPISODES, study.episodes), (FRESH, study.fresh))
        if frame is not None
    }
    if curves := read_curves(study.storage, study.folder):
        files[CURVES] = curves_bytes(curves)
    about = {"study": study.name, **{k: study.about[k] for k in KEPT if k in study.about}}
    files[STUDY_FILE] = (json.dumps(about, indent=2, sort_keys=True) + "\n").encode()
    for name, data in files.items():
        if len(data) > most:
            raise ConfigError(
                f"compact copy: {name} would have {len(data) / 1e6:.4f} MB, and at most {most / 1e6:g} MB "
                "are allowed (--most-mb)"
            )
    target = Storage(out)  # symbolic links are not followed
    for name, data in files.items():
        target.write(name, data)


def small_parquet(frame: pd.DataFrame) -> bytes:
    """The bytes of a data frame as a compressed Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), sink, compression="zstd")
    return sink.getvalue()
