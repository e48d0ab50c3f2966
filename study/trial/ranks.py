"""Communication between the ranks that share a trial."""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Group(Protocol):
    """The ranks that share a trial."""

    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in order of rank, on every rank."""
        ...


class SingleRank:
    """A group of one rank, for ``--workers 0``."""

    rank, size = 0, 1

    def gather(self, value: Any) -> list[Any]:
        return [value]


class TorchGroup:
    """The ranks of an initialised ``torch.distributed`` group (gloo or nccl); objects are sent over gloo."""

    def __init__(self) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        backend = torch.distributed.get_backend()
        self._group: Any = None if backend == "gloo" else torch.distributed.new_group(backend="gloo")

    def gather(self, value: Any) -> list[Any]:
        out: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(out, value, group=self._group)
        return out
