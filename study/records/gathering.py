"""Many small files read as one table: some at a time, so that memory holds what is kept and little more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ProgressCallback = Callable[[int, int], None]
"""Hears how many parts are done of how many."""
A = TypeVar("A", bound=tuple[Any, ...])
B = TypeVar("B")
READERS, LOCAL_READERS = 16, 1
"""Files read at once: in an object store each is a round trip of its own; on a disk threads only wait
for the interpreter's lock."""
TOGETHER = 64
"""Tables of a file each that become one: a column of 20 numbers takes a kilobyte of its own."""
ORDER = ("trial", "seed", "attack")


def no_progress(done: int, of: int) -> None:
    """A :data:`ProgressCallback` that nobody listens to."""


def each(
    work: Callable[..., B],
    items: Iterable[A],
    on_progress: ProgressCallback = no_progress,
    readers: int = READERS,
) -> Iterator[tuple[A, B]]:
    """(item, work of it), in order; several at once, in threads, and few ahead of who reads."""
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
    """The tables as one, in order of trial, seed and attacker (of equals: as they come)."""
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
    """Sorted; as it is if that is its order already, since a copy takes as much memory again."""
    keys = pa.table({name: table[name] for name in ORDER})
    places = pc.sort_indices(keys, [(name, "ascending") for name in ORDER])
    if np.array_equal(places.to_numpy(), np.arange(len(table))):
        return table
    return table.take(places)


class Rows(Sequence[dict[str, Any]]):
    """A trial's records, made from a table whenever they are asked for: as dictionaries they take 50 times
    the memory, and few are looked at twice."""

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
    """Trial -> its records, kept together with those of others."""
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
