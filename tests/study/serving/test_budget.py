"""The query budget: exact under threads, kept over a kill, renewed where it says so."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mipoison.config import ConfigError
from study.serving import budget as module
from study.serving.budget import OverBudget, QueryBudget


def spend(budget: QueryBudget, client: str, n: int) -> int | OverBudget:
    try:
        return budget.spend(client, n).left
    except OverBudget as over:
        return over


def test_each_client_has_its_own(tmp_path: Path) -> None:
    budget = QueryBudget(tmp_path / "q", 10)
    assert budget.spend("a", 4).left == 6
    assert spend(budget, "a", 7) == OverBudget(6, None)  # nothing of it is counted
    since = budget.spend("a", 6).since
    assert spend(budget, "a", 1) == OverBudget(0, None)
    assert spend(budget, "b", 11) == OverBudget(10, None)
    assert budget.spend("b", 10).left == 0
    budget.give_back("a", 3, since)
    assert budget.spend("a", 3).left == 0
    assert (tmp_path / "q").stat().st_mode & 0o077 == 0


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    first = QueryBudget(tmp_path / "q", 10)
    first.spend("a", 4)
    first.close()
    again = QueryBudget(tmp_path / "q", 10)
    assert spend(again, "a", 7) == OverBudget(6, None)
    assert QueryBudget(tmp_path / "q", 3).path.exists()
    assert spend(QueryBudget(tmp_path / "q", 3), "a", 1) == OverBudget(0, None)  # a smaller budget, spent


LOOP = """
import sys
from pathlib import Path
from study.serving.budget import QueryBudget
budget = QueryBudget(Path(sys.argv[1]), 10**9)
while True:
    left = budget.spend("a", 1).left
    print(10**9 - left, flush=True)  # the answer
"""


def test_who_is_killed_has_counted_all_it_answered(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path / "q")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    answered = 0
    while answered < 50:
        answered = int(process.stdout.readline())
    process.kill()
    last = [answered, *map(int, process.stdout.read().split("\n")[:-1])][-1]
    process.wait()
    spent = 10**9 - QueryBudget(tmp_path / "q", 10**9).spend("a", 1).left - 1
    assert last <= spent <= last + 1  # at most one was counted and not answered


def test_threads_and_two_openings_never_give_one_too_many(tmp_path: Path) -> None:
    budgets = [QueryBudget(tmp_path / "q", 100) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: spend(budgets[i % 2], "a", 1), range(150)))
    assert sorted(f for f in found if isinstance(f, int)) == list(range(100))


def test_a_budget_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    budget = QueryBudget(tmp_path / "q", 5, renewed_s=60)
    assert budget.spend("a", 5).left == 0
    now[0] = 1012.5
    assert spend(budget, "a", 1) == OverBudget(0, 48)
    now[0] = 1061
    assert spend(budget, "a", 6) == OverBudget(5, 60)
    assert budget.spend("a", 2).left == 3
    now[0] = 1120
    assert spend(budget, "a", 4) == OverBudget(3, 1)


def test_a_refund_belongs_to_the_window_it_was_spent_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    budget = QueryBudget(tmp_path / "q", 5, renewed_s=60)
    old = budget.spend("a", 5)
    now[0] = 1061
    new = budget.spend("a", 5)
    assert (old.since, new.since) == (1000, 1061)
    budget.give_back("a", 5, old.since)
    assert spend(budget, "a", 1) == OverBudget(0, 60)  # nothing of the new window comes back
    budget.give_back("a", 2, new.since)
    assert budget.spend("a", 2).left == 0


def test_who_has_nothing_left_is_known_without_counting(tmp_path: Path) -> None:
    budget = QueryBudget(tmp_path / "q", 2)
    budget.check("a")
    budget.spend("a", 1)
    budget.check("a")
    assert budget.spend("a", 1).left == 0
    with pytest.raises(OverBudget) as caught:
        budget.check("a")
    assert caught.value == OverBudget(0, None)
    budget.check("b")


def test_files_that_cannot_count(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    for path in (tmp_path / "text", tmp_path / "none" / "q", tmp_path):
        with pytest.raises(ConfigError, match="--query-store") as caught:
            QueryBudget(path, 1)
        assert "\n" not in str(caught.value)


def test_a_file_that_another_holds_is_an_error_not_a_free_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.1)
    budget = QueryBudget(tmp_path / "q", 5)
    other = sqlite3.connect(tmp_path / "q", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        budget.spend("a", 1)
    assert time.monotonic() - began < 5
    other.execute("ROLLBACK")
    assert budget.spend("a", 1).left == 4
