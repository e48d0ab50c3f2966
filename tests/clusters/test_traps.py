"""Surprising behaviour of Ray, Tune, Train and Optuna that this study works around."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from simulated import (
    ROOT,
    SLACK,
    TIMEOUT_S,
    Driver,
    Simulated,
    arguments,
    assert_whole,
    private_environment,
)

from study.executors import worker_group as worker_group_module
from study.executors.losses import NODE_RETRIES, RETRIES, loss_of
from study.executors.tune import TrialErrors
from study.executors.tune import TuneSearcher as Searcher
from study.executors.worker_group import WorkerGroup
from study.search.sampler import Search
from study.trial.spec import TrialSpec

LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
"""127.0.0.1, ::1 and the former as an IPv6 address, as /proc/net/tcp writes them."""
WORKER_GROUP = WorkerGroup(0, 1, 0, True)
SPEC = TrialSpec(
    study="s",
    max_accuracy_drop=0.02,
    trial="t0001-noise",
    attempt=0,
    defense="noise",
    knobs={"budget": 0.1},
    attackers=("passive",),
    scenes=(),
    root="unused",
    data_root=None,
)
pytestmark = pytest.mark.timeout(580 * SLACK)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcomes of trials that end in different ways (``tune_ends.py``)."""
    with private_environment() as environment:
        # Without the token of the simulated clusters: the local Ray creates its own.
        environment = {k: v for k, v in environment.items() if not k.startswith("RAY_AUTH")}
        environment["PYTHONPATH"] += f":{Path(__file__).parent}"
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("tune_ends.py"))],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    assert done.returncode == 0, done.stderr[-5000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.ray
def test_every_end_of_a_trial_is_heard_once(ends: dict[str, Any]) -> None:
    """A missing objective aborts Tune's run, NaN leaves Optuna's trial running, lost trials may disappear."""
    heard = {trial.partition(" ")[2]: (outcome, error) for trial, outcome, error in ends["heard"]}
    assert len(ends["heard"]) == 10
    assert len({trial for trial, _, _ in ends["heard"]}) == 10
    assert heard["fine"] == ({"worst_attack_accuracy": 0.5}, None)
    assert heard["dies once"] == heard["fine"]
    assert math.isnan(heard["nan"][0]["worst_attack_accuracy"])
    assert heard["absent"] == ({"episodes": 1.0}, None)
    assert heard["none"][0] is None
    for end in ("nothing", "raises", "dies"):
        outcome, error = heard[end]
        assert outcome is None
        assert f"{1 + RETRIES} times" in error
    # Each trial runs once, the one that died once twice, those that always die until their last retry.
    assert ends["starts"] == 10 + 1 + 3 * RETRIES


@pytest.mark.ray
def test_no_more_trials_at_once_than_asked_for(ends: dict[str, Any]) -> None:
    assert ends["most"] == 2


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_a_local_ray_listens_on_loopback_alone(ends: dict[str, Any]) -> None:
    assert len(ends["addresses"]) >= 3  # head, raylet and workers were found
    assert set(ends["addresses"]) <= LOOPBACK


@pytest.mark.ray
def test_no_token_is_left_in_the_home_folder(ends: dict[str, Any]) -> None:
    assert [name for name in ends["tokens"] if name != "token"] == []  # the fixture created that one


@pytest.mark.ray
def test_train_trials_take_turns_where_only_one_fits(tmp_path: Path) -> None:
    """Two workers with one CPU each on two nodes, two trials at a time, no dashboard.

    A trial that held a CPU while it waits for its workers would wait without end, and so would the second
    trial if the first one's placement group stayed (Train's own clean-up asks the dashboard).
    """
    with private_environment() as environment:
        nodes = Simulated(environment, 2)
        changes = {"trials": 3, "workers": 2, "concurrent": 2, "defenses": ("noise",)}
        try:
            Driver(environment, [*arguments(tmp_path / "s", **changes), "--address", nodes.address]).finish()
        finally:
            nodes.close()
    assert_whole(tmp_path / "s", tmp_path / "calm", 3, defenses=("noise",))


def test_train_gives_up_and_gloo_shares_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default Train retries without limit, and two NCCL ranks cannot share a GPU."""
    asked: dict[str, Any] = {}

    class Trainer:
        def __init__(self, loop: Any, **options: Any) -> None:
            asked.update(options)

        def fit(self) -> Any:
            return type("Result", (), {"return_value": 7})

    released: list[str] = []
    monkeypatch.setattr(worker_group_module, "Trainer", Trainer)
    monkeypatch.setattr(worker_group_module, "release", released.append)
    for loopback in (False, True):
        assert WorkerGroup(2, 1, 0.5, loopback).train(lambda config: None, {}, "t") == 7
        assert asked["torch_config"].backend == "gloo"
        assert asked["run_config"].failure_config.max_failures == 0
        assert asked["run_config"].failure_config.controller_failure_limit == 0
        assert asked["scaling_config"].resources_per_worker == {"CPU": 1, "GPU": 0.5}
    assert len(set(released)) == 2  # each run released its own placement group


def test_the_searcher_can_be_pickled_and_is_never_restored(tmp_path: Path) -> None:
    """Tune pickles the searcher from time to time, so it must not contain the study or lambdas."""
    searcher = Searcher(lambda: None, lambda spec, end: None, WorkerGroup(0, 1, 0, True), 3)
    state = pickle.loads(pickle.dumps(searcher)).__dict__
    assert state == {"n": 3}
    searcher.save(str(tmp_path / "snapshot"))
    assert (tmp_path / "snapshot").read_bytes() == b""
    with pytest.raises(RuntimeError, match="--resume"):
        searcher.restore(str(tmp_path / "snapshot"))
    pickle.dumps(dataclasses.asdict(WorkerGroup(0, 1, 0, True)))


def test_a_resumed_search_takes_another_seed(tmp_path: Path) -> None:
    """With the same sampler seed, a resumed search would repeat its suggestions."""

    def suggestions(seed: int) -> list[Any]:
        search = Search(["noise"], sampler="random", seed=seed, max_accuracy_drop=0.02)
        return [search.ask().config for _ in range(8)]

    assert suggestions(0) == suggestions(0)  # the trap
    assert not set(suggestions(0)) & set(suggestions(1000))


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
    """A lost node gets many retries; a process that dies on every node gets few."""
    causes = TrialErrors()
    heard: list[str | None] = []
    for text, times in (("its node has died", 1 + NODE_RETRIES), ("SIGKILL", 1 + RETRIES)):
        (tmp_path / "error.txt").write_text(text)
        causes.on_step_begin(0, [SimpleNamespace(trial_id="a", error_file=str(tmp_path / "error.txt"))])
        searcher = Searcher(lambda: SPEC, lambda _, end: heard.append(end.message), WORKER_GROUP, 1, causes)
        for _ in range(times):
            assert isinstance(searcher.suggest("a"), dict)
            searcher.on_trial_complete("a", error=True)
        assert searcher.suggest("b") == Searcher.FINISHED
        assert f"{times} times" in str(heard[-1])
    assert len(heard) == 2


def test_a_searcher_waits_for_trials_that_may_come_back() -> None:
    searcher = Searcher(lambda: SPEC, lambda spec, end: None, WORKER_GROUP, 1)
    searcher.suggest("a")
    assert searcher.suggest("b") is None  # not FINISHED: the running trial may still be lost
    searcher.on_trial_complete("a", error=True)
    assert isinstance(searcher.suggest("c"), dict)
    searcher.on_trial_complete("c", {"outcome": "{}"})
    assert searcher.suggest("d") == Searcher.FINISHED


def test_no_test_stops_every_ray_of_the_machine() -> None:
    """`ray stop` ends all Ray processes of the machine, also those of other users."""
    runners = {"run", "Popen", "call", "check_call", "check_output", "system"}
    calls = 0
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in runners:
                calls += 1
                words = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant)]
                text = " ".join(w for w in words if isinstance(w, str))
                assert "ray stop" not in text, f"{path.name}:{node.lineno}"
                assert "scripts stop" not in text, f"{path.name}:{node.lineno}"
    assert calls >= 5
    assert "ray stop" not in (ROOT / ".ci" / "run").read_text()
