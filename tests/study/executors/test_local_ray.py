"""A local Ray's beginning and end: what cannot be private is not started, and its folder and token go."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import utils

from mipoison.config import ConfigError
from study.executors import local_ray
from study.executors.environment import RayPlan
from study.executors.local_ray import keep_signal_handlers, start_local, stop_ray


def plan_in(folder: Path, **changes: Any) -> RayPlan:
    scratch, token = folder / "r", folder / "token"
    scratch.mkdir()
    token.write_text("secret")
    values = dict(local=True, scratch=str(scratch), token=str(token))
    return RayPlan(**values | changes)


def test_rays_own_handler_of_sigterm_is_not_set() -> None:
    theirs, before = utils.set_sigterm_handler, signal.getsignal(signal.SIGTERM)
    with keep_signal_handlers():
        utils.set_sigterm_handler(lambda *given: None)
        assert signal.getsignal(signal.SIGTERM) == before
    assert utils.set_sigterm_handler is theirs


def test_a_ray_that_others_could_reach_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = {}
    ended: list[str] = []

    def not_private(folder: str) -> None:
        raise ConfigError("others can enter")

    monkeypatch.setattr(ray, "init", lambda **options: started.update(options))
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append("ray"))
    monkeypatch.setattr(local_ray, "check_length", lambda folder: None)  # the test's own folder is long
    monkeypatch.setattr(local_ray, "check_privacy", not_private)
    plan = plan_in(tmp_path)
    with pytest.raises(ConfigError, match="others can enter"):
        start_local(plan, num_cpus=1)
    assert started["_node_ip_address"] == "127.0.0.1"
    assert started["_temp_dir"] == plan.scratch
    assert started["num_cpus"] == 1
    assert ended == ["ray"]
    assert list(tmp_path.iterdir()) == []  # nor is the token left


def test_a_cluster_of_others_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    plan = plan_in(tmp_path, local=False, address="10.0.0.1:6379")
    stop_ray(plan)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "token"]
