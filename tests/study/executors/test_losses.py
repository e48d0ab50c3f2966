"""What Ray says of processes that were lost, told in a few words and counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from study.executors.losses import NODE_RETRIES, RETRIES, loss_of
from study.executors.tune import TrialErrors, TuneSearcher
from tests.study.executors.helpers import CREW, SPEC


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 worker(s) were killed due to the node running low on memory. Memory on", "out of memory"),
        ("The actor died unexpectedly. (1) SIGKILL by the user or system OOM killer", "process was lost"),
        ("The actor died because its node has died. Node Id: abc", "node was lost"),
        ("Task failed because the node it was running on is dead or unavailable. Node IP:", "node was lost"),
        ("", "process was lost"),
    ],
)
def test_a_loss_is_told_in_a_few_words(text: str, said: str) -> None:
    assert said in loss_of(text)


def test_a_lost_machine_counts_less_than_a_dead_process(tmp_path: Path) -> None:
    """Spot machines go often; a process that dies wherever it runs is the trial's own doing."""
    causes = TrialErrors()
    heard: list[str | None] = []
    for text, times in (("its node has died", 1 + NODE_RETRIES), ("SIGKILL", 1 + RETRIES)):
        (tmp_path / "error.txt").write_text(text)
        causes.on_step_begin(0, [SimpleNamespace(trial_id="a", error_file=str(tmp_path / "error.txt"))])
        searcher = TuneSearcher(lambda: SPEC, lambda _, end: heard.append(end.message), CREW, 1, causes)
        for _ in range(times):
            assert isinstance(searcher.suggest("a"), dict)
            searcher.on_trial_complete("a", error=True)
        assert searcher.suggest("b") == TuneSearcher.FINISHED
        assert f"{times} times" in str(heard[-1])
    assert len(heard) == 2
