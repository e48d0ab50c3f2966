"""Episode records: one Parquet file per trial and attempt.

The frontier, the report and the state of a resumed study are computed from these files alone.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mipoison.config import ConfigError
from mipoison.defenses import ANCHORS
from mipoison.storage.files import Storage
from study.records.gathering import (
    LOCAL_READERS,
    ORDER,
    READERS,
    A,
    B,
    ProgressCallback,
    gather,
    map_in_order,
    no_progress,
    rows_by_trial,
)
from study.records.names import check_name as check_name
from study.records.reading import Unreadable, fetch, leave_out
from study.records.reading.documents import MAX_JSON_BYTES, about_of, parse_json, settings_of, started_of
from study.records.reading.episodes import episodes_of, needed_to_check, of_one_scene
from study.records.schema import episode_schema, part_of_schema, to_frame, to_table

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

STUDY_FILE = "study.json"
"""File with a study's settings, versions and command line."""


class Records:
    """The files of one study below a storage root.

    ``<study>/episodes/<trial>.a<attempt>.parquet`` (finished trials), ``<study>/trials/<trial>.json``
    (started trials), ``<study>/study.json`` (the settings). A trial whose file is invalid counts as not
    finished: readers leave the file out; a resumed study moves it to ``damaged/`` and runs the trial again.
    """

    def __init__(self, storage: Storage, study: str) -> None:
        self.storage, self.study = storage, check_name(study)

    def write_trial(self, trial: str, attempt: int, records: list[dict[str, Any]]) -> None:
        """Write all episodes of a finished trial, as one file."""
        rows = [r | {"study": self.study, "trial": trial, "attempt": attempt} for r in records]
        sink = io.BytesIO()
        pq.write_table(to_table(rows), sink)
        self.storage.write(self._file(trial, attempt), sink.getvalue())

    def _file(self, trial: str, attempt: int) -> str:
        return f"{self.study}/episodes/{check_name(trial, 'trial')}.a{attempt}.parquet"

    def attempts(self) -> dict[str, list[str]]:
        """Trial (anchors first) -> names of its files, latest attempt first. Files may be invalid."""
        found: dict[str, list[tuple[int, str]]] = {}
        for name in self.storage.names(f"{self.study}/episodes"):
            match = re.fullmatch(r".*/([A-Za-z0-9][A-Za-z0-9._-]*)\.a(\d{1,6})\.parquet", name)
            if match:
                found.setdefault(match[1], []).append((int(match[2]), name))
        order = [
            *(name for name in ANCHORS if name in found),
            *(name for name in found if name not in ANCHORS),
        ]
        return {trial: [name for _, name in sorted(found[trial], reverse=True)] for trial in order}

    def finished(self) -> dict[str, str]:
        """Trial -> name of the file of its latest attempt."""
        return {trial: names[0] for trial, names in self.attempts().items()}

    def read_trial(self, trial: str, attempt: int | None = None) -> list[dict[str, Any]]:
        """The records of one finished trial; empty without a valid file.

        With the attempt given, one file is opened and no folder is listed: a listing grows with the study.
        """
        names = self.attempts().get(trial, []) if attempt is None else [self._file(trial, attempt)]
        table = self._latest(trial, names)
        return [] if table is None else table.to_pylist()

    def read_trials(self) -> dict[str, Sequence[dict[str, Any]]]:
        """Trial -> its records, for all finished trials; the folder is listed once."""
        return {trial: table.to_pylist() for trial, table in self._tables() if len(table)}

    def read(self, columns: Collection[str] | None = None) -> pd.DataFrame:
        """All finished episodes, one attempt a trial, sorted by trial, seed and attacker.

        Args:
            columns: the columns to return; None for all. Those of the order are always returned.
        """
        if columns is None:
            return to_frame(gather((table for _, table in self._tables()), episode_schema()))
        schema = part_of_schema(lambda name: name in columns or name in ORDER)
        read = part_of_schema(lambda name: name in schema.names or needed_to_check(name))
        return to_frame(gather((table.select(schema.names) for _, table in self._tables(read)), schema))

    def _map(
        self, work: Callable[..., B], items: Iterable[A], on_progress: ProgressCallback = no_progress
    ) -> Iterator[tuple[A, B]]:
        return map_in_order(work, items, on_progress, LOCAL_READERS if self.storage.local else READERS)

    def _tables(self, schema: pa.Schema | None = None) -> Iterator[tuple[str, pa.Table]]:
        """Each trial of the study's scene and its latest valid attempt, with the schema's columns or all."""
        latest = functools.partial(self._latest, schema=schema)
        found = self._map(latest, self.attempts().items())
        whole = ((trial, table) for (trial, _), table in found if table is not None)
        return of_one_scene(whole, self.study)

    def _latest(self, trial: str, names: list[str], schema: pa.Schema | None = None) -> pa.Table | None:
        """The latest valid attempt of a trial; None if there is none."""
        for name in names:
            try:
                data = fetch(self.storage, name)
                if data is not None:
                    return parse(data, trial, schema)
            except Unreadable as error:
                leave_out(name, error)
        return None

    def read_and_move_damaged(
        self, on_progress: ProgressCallback = no_progress, kept: Collection[str] | None = None
    ) -> tuple[dict[str, Sequence[dict[str, Any]]], list[str]]:
        """Like :meth:`read_trials`, but move invalid files from ``episodes/`` to ``damaged/``.

        Only the driver that owns the study may call this: the trials of moved files then run again.

        Args:
            on_progress: called with the number of trials read, and of all.
            kept: columns to keep of the search's trials; None for all. Anchors keep all columns.

        Returns:
            The records, and the names of the moved files.
        """
        moved: list[str] = []

        def tables() -> Iterator[tuple[str, pa.Table]]:
            for (trial, _), (table, damaged) in self._map(
                self._read_and_move_damaged, self.attempts().items(), on_progress
            ):
                moved.extend(damaged)
                if table is not None:
                    yield trial, table

        def slim() -> Iterator[tuple[str, pa.Table]]:
            for trial, table in of_one_scene(tables(), self.study):
                wanted = set(table.column_names if kept is None or trial in ANCHORS else kept)
                yield trial, table.select([name for name in table.column_names if name in wanted])

        return dict(rows_by_trial(slim())), moved

    def _read_and_move_damaged(self, trial: str, names: list[str]) -> tuple[pa.Table | None, list[str]]:
        """A trial's latest valid attempt, and the names of its files that were moved."""
        found, moved = None, []
        for name in names:
            try:
                data = fetch(self.storage, name)
            except Unreadable as error:  # too large to move; the trial runs again and writes a new file
                leave_out(name, error)
                continue
            if data is None:
                continue
            try:
                table = parse(data, trial)
                found = table if found is None else found
            except Unreadable as error:
                file = name.rsplit("/", 1)[1]
                self.storage.write(f"{self.study}/damaged/{file}.{uuid.uuid4().hex[:8]}", data)
                self.storage.delete(name)
                log.warning("%s moved to damaged/, its trial runs again: %s", name, error)
                moved.append(name)
        return found, moved

    def write_json(self, name: str, value: Any) -> None:
        """Write ``<study>/<name>`` as JSON."""
        self.storage.write(f"{self.study}/{name}", json.dumps(value, indent=2, sort_keys=True).encode())

    def read_json(self, name: str) -> Any | None:
        """Read ``<study>/<name>``; None if it does not exist.

        Raises:
            ConfigError: it is not valid JSON.
        """
        try:
            data = fetch(self.storage, f"{self.study}/{name}", MAX_JSON_BYTES)
            return None if data is None else parse_json(data)
        except Unreadable as error:
            raise self._damaged(name, error) from error

    def read_study_file(self) -> dict[str, Any] | None:
        """The content of ``study.json``, for a study that is resumed; None if there is no study.

        Raises:
            ConfigError: the file holds no settings.
        """
        try:
            data = fetch(self.storage, f"{self.study}/{STUDY_FILE}", MAX_JSON_BYTES)
            if data is None:
                return None
            about = about_of(data)
            return about | {"settings": settings_of(about)}
        except Unreadable as error:
            raise self._damaged(STUDY_FILE, error) from error

    def _damaged(self, name: str, error: Unreadable) -> ConfigError:
        return ConfigError(
            f"{self.study}/{name} in {self.storage.root} is damaged ({error}): put it back from a copy, "
            "or choose another --name"
        )

    def started_names(self) -> list[str]:
        """Names of all trials that were started, including those whose file is invalid."""
        names = [name.rsplit("/", 1)[1] for name in self.storage.names(f"{self.study}/trials")]
        return [
            m[1] for m in (re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})\.json", n) for n in names) if m
        ]

    def started(self) -> dict[str, Mapping[str, Any]]:
        """Trial -> its defense, knobs and attempt, for every started trial with a valid file."""
        found = self._map(self._started, [(trial,) for trial in self.started_names()])
        return {trial: spec for (trial,), spec in found if spec is not None}

    def _started(self, trial: str) -> Mapping[str, Any] | None:
        name = f"{self.study}/trials/{trial}.json"
        try:
            data = fetch(self.storage, name, MAX_JSON_BYTES)
            return None if data is None else started_of(data)
        except Unreadable as error:
            leave_out(name, error)
            return None


def parse(data: bytes, trial: str, schema: pa.Schema | None = None) -> pa.Table:
    """Read a trial's file into a table with plain pyarrow (no content can run code).

    Args:
        schema: the columns to read; None for all.

    Raises:
        Unreadable: truncated or altered, of another trial or schema, or with values out of bounds.
    """
    return episodes_of(data, trial, episode_schema() if schema is None else schema)
