"""Surprising behaviour of Ray, Tune, Train and Optuna that this study works around."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
from pathlib import Path
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

from study.executors.losses import RETRIES
from study.records.constraints import Constraints
from study.search.objectives import OTHER_CLASSES, chosen
from study.search.sampler import Search

LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
"""127.0.0.1, ::1 and the former as an IPv6 address, as /proc/net/tcp writes them."""
pytestmark = [pytest.mark.faults, pytest.mark.timeout(580 * SLACK)]


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


def test_a_resumed_search_takes_another_seed(tmp_path: Path) -> None:
    """With the same sampler seed, a resumed search would repeat its suggestions."""

    def suggestions(seed: int) -> list[Any]:
        search = Search(
            ["noise"],
            sampler="random",
            seed=seed,
            objectives=chosen(OTHER_CLASSES),
            constraints=Constraints(),
        )
        return [search.ask().config for _ in range(8)]

    assert suggestions(0) == suggestions(0)  # the trap
    assert not set(suggestions(0)) & set(suggestions(1000))


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
