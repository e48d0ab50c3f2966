"""The benchmarks of stacked attackers and of streaming, on their quick sizes: the numbers add up."""

from __future__ import annotations

import pytest
import torch

from mipoison.attacks.stacked import grouped
from study.bench.stacked import MEMBERS, SIZES, jobs, stacked


def test_sixteen_members_are_one_stack_and_the_ratio_is_of_medians() -> None:
    (row,) = stacked(quick=True, repeats=2)
    assert row["ratio"] == pytest.approx(row["baseline"] / row["value"])
    assert row["value"] > 0
    assert (row["holds"] is None) == (not torch.cuda.is_available())
    for size in SIZES:
        assert [len(rows) for rows in grouped(jobs(size, torch.device("cpu"), n=size.batch))] == [MEMBERS]
