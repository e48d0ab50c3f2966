"""Reads many small Parquet files into one table, a few at a time, so that memory stays close to its size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ProgressCallback = Callable[[int, int], None]
"""Called with the number of parts done and the number of all parts."""
A = TypeVar("A", bound=tuple[Any, ...])
B = TypeVar("B")
READERS, LOCAL_READERS = 16, 1
"""Threads that read files: in an object store each file costs a round trip; on a local disk more than one
thread only waits for the interpreter's lock."""
TOGETHER = 64
"""Tables (one a file) that are concatenated at a time: a column of 20 numbers alone takes a kilobyte."""
ORDER = ("trial", "seed", "attack")


def no_progress(done: int, of: int) -> None:
    """A :data:`ProgressCallback` that does nothing."""


def map_in_order(
    work: Callable[..., B],
    items: Iterable[A],
    on_progress: ProgressCallback = no_progress,
    readers: int = READERS,
) -> Iterator[tuple[A, B]]:
    """Yield (item, ``work(*item)``) in order, computed by threads that run only a few items ahead."""
    todo = list(items)
    if readers == 1:
        for i, item in enumerate(todo):
            found = work(*item)
            on_progress(i, len(todo))
            yield item, found
        return
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(readers) as pool:
        for i, item in enumerate(todo):
            while len(waiting) < 2 * readers and i + len(waiting) < len(todo):
                waiting.append(pool.submit(work, *todo[i + len(waiting)]))
            found = waiting.popleft().result()
            on_progress(i, len(todo))
            yield item, found


def gather(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Concatenate tables and sort the rows by trial, seed and attacker (a stable sort)."""
    batches: list[pa.Table] = []
    few: list[pa.Table] = []
    for table in tables:
        few.append(table)
        if len(few) == TOGETHER:
            batches.append(_joined(few))
            few = []
    batches += [_joined(few)] if few else []
    return _ordered(pa.concat_tables(batches, promote_options="default") if batches else schema.empty_table())


def _joined(tables: list[pa.Table]) -> pa.Table:
    return _ordered(pa.concat_tables(tables, promote_options="default").combine_chunks())


def _ordered(table: pa.Table) -> pa.Table:
    """The table sorted. A sorted table is returned itself, as a copy would take as much memory again."""
    keys = pa.table({name: table[name] for name in ORDER})
    places = pc.sort_indices(keys, [(name, "ascending") for name in ORDER])
    if np.array_equal(places.to_numpy(), np.arange(len(table))):
        return table
    return table.take(places)


class Rows(Sequence[dict[str, Any]]):
    """A trial's records as a sequence of dictionaries, which are made from a table at each access.

    Kept as dictionaries they would take 50 times the memory, and few are read twice.
    """

    def __init__(self, table: pa.Table, start: int, length: int) -> None:
        self._table, self._start, self._length = table, start, length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self._list()[place]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._list())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._list() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _list(self) -> list[dict[str, Any]]:
        return list(self._table.slice(self._start, self._length).to_pylist())


def rows_by_trial(tables: Iterable[tuple[str, pa.Table]]) -> dict[str, Rows]:
    """Trial -> its records. Trials share concatenated tables, which take less memory than one each."""
    out: dict[str, Rows] = {}
    few: list[tuple[str, pa.Table]] = []

    def join() -> None:
        joined = pa.concat_tables([t for _, t in few], promote_options="default").combine_chunks()
        start = 0
        for trial, table in few:
            out[trial] = Rows(joined, start, len(table))
            start += len(table)
        few.clear()

    for trial, table in tables:
        if few and (len(few) == TOGETHER or table.column_names != few[-1][1].column_names):
            join()
        few.append((trial, table))
    if few:
        join()
    return out
