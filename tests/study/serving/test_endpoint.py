"""The classifier behind Ray Serve: what is asked comes back in order, and a copy that is gone is a 503."""

from __future__ import annotations

import asyncio
import importlib
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.schema import ReplicaState

from mipoison.config import ConfigError
from mipoison.serving.unit import unit_sha256
from study.serving import endpoint
from study.serving.endpoint import Endpoint, Served, answer_through, fault_of, keep_to_loopback
from study.serving.request_parsing import RequestError

Plain = Endpoint.func_or_class  # without Ray around it


def test_requests_are_answered_in_order_from_copies() -> None:
    replica = object.__new__(Plain)
    replica.one_at_a_time = threading.Lock()
    replica.protected = SimpleNamespace(
        answer=lambda requests: [x.mean((1, 2, 3))[:, None] for x in requests]
    )
    asked = [np.full((n, 1, 2, 2), n / 8, np.float32) for n in (1, 3)]
    for x in asked:
        x.setflags(write=False)  # as arrays out of Ray's memory are
    found = replica.release(asked)
    assert [z.shape for z in found] == [(1, 1), (3, 1)]
    assert [z[0, 0] for z in found] == [1 / 8, 3 / 8]


def test_a_copy_that_is_gone_is_a_503() -> None:
    async def lost(requests: list[np.ndarray]) -> list[np.ndarray]:
        raise RayActorError

    handle: Any = SimpleNamespace(release=SimpleNamespace(remote=lost))
    with pytest.raises(RequestError, match="no replica of the classifier") as caught:
        asyncio.run(answer_through(handle)([]))
    assert caught.value.status == 503


def test_what_is_wrong_with_an_application(monkeypatch: pytest.MonkeyPatch) -> None:
    states: dict[str, Any] = {}
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications=states))
    assert fault_of("m") == "the classifier is not loaded"
    replicas = {ReplicaState.STARTING: 1}
    states["m"] = SimpleNamespace(deployments={"d": SimpleNamespace(replica_states=replicas)})
    assert fault_of("m") == "no replica of the classifier is running"
    replicas[ReplicaState.RUNNING] = 1
    assert fault_of("m") == ""


def test_rays_server_is_kept_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    replica = SimpleNamespace(add_port_to_grpc_server=lambda server, address: opened.append(address))
    monkeypatch.setattr(importlib, "import_module", lambda name: replica)
    assert keep_to_loopback()
    replica.add_port_to_grpc_server(None, "[::]:4711")
    assert opened == ["127.0.0.1:4711"]
    monkeypatch.setattr(endpoint.importlib, "import_module", lambda name: SimpleNamespace())
    assert not keep_to_loopback()  # another version of Ray: the start of the server says so


def test_a_unit_that_was_replaced_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server checked one unit; a copy that starts later reads the folder anew."""
    unit = SimpleNamespace(wrap=lambda victim, secret: "protected")
    monkeypatch.setattr(endpoint, "load_unit", lambda folder, device: unit)
    monkeypatch.setattr(endpoint, "load_kept_victim", lambda folder, unit: None)
    (tmp_path / "unit.json").write_text("{}")
    checked = unit_sha256(tmp_path)
    terms: dict[str, Any] = {"victim": None, "victim_state": None, "device": None, "threads": 1}
    served = Served(unit=str(tmp_path), unit_sha256=checked, **terms)
    assert served.load() == "protected"
    (tmp_path / "unit.json").write_text("{ }")
    with pytest.raises(ConfigError, match=r"was replaced .*start the server anew") as caught:
        served.load()
    assert "\n" not in str(caught.value)
