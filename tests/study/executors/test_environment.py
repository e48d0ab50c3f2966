"""The choice of a Ray before Ray is imported; each case in its own process, as the environment changes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, os, stat, sys
from pathlib import Path
from mipoison.config import ConfigError
from study.executors.environment import plan_ray
try:
    plan = plan_ray(*json.loads(sys.argv[1]))
except ConfigError as error:
    print(json.dumps({"error": str(error)}))
else:
    found = {"plan": vars(plan), "text": str(plan), "env": dict(os.environ), "ray": "ray" in sys.modules}
    if plan.token:  # deleted when the process ends
        token = Path(plan.token)
        found["token"] = token.read_text()
        found["modes"] = [stat.S_IMODE(p.stat().st_mode) for p in (token, *token.parents[:2])]
    print(json.dumps(found))
"""


class Machine:
    """A machine with its own home and temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.home, self.tmp = folder / "home", folder / "tmp"
        self.home.mkdir()
        self.tmp.mkdir()

    def leave_address(self, address: str, tmp: Path | None = None) -> None:
        """Write the address file of `ray start`."""
        path = (tmp or self.tmp) / "ray" / "ray_current_cluster"
        path.parent.mkdir(parents=True)
        path.write_text(address)

    def plan(self, address: str | None = None, **environment: str) -> dict[str, Any]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_", "MIPOISON_"))}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps([address])],
            env=kept | {"HOME": str(self.home), "TMPDIR": str(self.tmp)} | environment,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {**json.loads(done.stdout), "stderr": done.stderr}

    def refused(self, address: str | None, **environment: str) -> str:
        error = self.plan(address, **environment)["error"]
        assert "\n" not in error
        return error


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def live() -> Iterator[str]:
    """An address that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dead() -> str:
    """An address that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def expect_local(found: dict[str, Any], machine: Machine) -> None:
    plan, env = found["plan"], found["env"]
    assert plan["local"] is True
    assert plan["address"] is None
    assert found["ray"] is False  # Ray was not imported: it would have read its environment too early
    assert env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"  # loopback
    assert env["RAY_AUTH_MODE"] == "token"
    token = Path(env["RAY_AUTH_TOKEN_PATH"])
    assert token.parent == Path(plan["scratch"]).parent
    assert machine.tmp in token.parents
    assert found["modes"] == [0o600, 0o700, 0o700]
    assert len(found["token"]) == 64
    int(found["token"], 16)
    assert list(machine.tmp.glob("mipoison-*")) == []  # nothing is left after the process has ended


def expect_cluster(found: dict[str, Any], address: str | None) -> None:
    assert found["plan"] | {"growing": False} == {
        "local": False,
        "address": address,
        "scratch": "",
        "token": "",
        "growing": False,
        "most": {},
    }
    assert "RAY_AUTH_TOKEN_PATH" not in found["env"]
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in found["env"]
    assert found["ray"] is False


def test_alone_a_local_ray_with_a_token(machine: Machine) -> None:
    found = machine.plan()
    expect_local(found, machine)
    assert found["text"] == "a local Ray on loopback"
    assert found["env"]["RAY_USAGE_STATS_ENABLED"] == "0"
    again = machine.plan()
    expect_local(again, machine)
    assert found["token"] != again["token"]


def test_the_token_is_private_whatever_the_umask(machine: Machine) -> None:
    old = os.umask(0)
    try:
        expect_local(machine.plan(), machine)
    finally:
        os.umask(old)


def test_a_users_own_choices_are_kept(machine: Machine) -> None:
    scratch = str(machine.tmp / "mine")
    env = machine.plan(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="1", MIPOISON_RAY_TMP=scratch)
    assert env["env"]["RAY_AUTH_MODE"] == "disabled"
    assert env["env"]["RAY_USAGE_STATS_ENABLED"] == "1"
    assert "RAY_AUTH_TOKEN_PATH" not in env["env"]
    assert Path(env["plan"]["scratch"]).parents[1] == Path(scratch)


@pytest.mark.parametrize("content", ["", "nonsense", "127.0.0.1:", "127.0.0.1:port", ":::"])
def test_an_address_file_without_an_address(machine: Machine, content: str) -> None:
    machine.leave_address(content)
    expect_local(machine.plan(), machine)


def test_an_address_left_behind_by_a_dead_cluster(machine: Machine, dead: str) -> None:
    machine.leave_address(dead)
    expect_local(machine.plan(), machine)


def test_the_cluster_of_this_machine_is_used(machine: Machine, live: str) -> None:
    machine.leave_address(live + "\n")
    for address in (None, "auto"):
        found = machine.plan(address)
        expect_cluster(found, live)  # the address that was checked: Ray would read the file again
        assert found["plan"]["growing"] is False
    assert found["text"] == f"the Ray cluster at {live}"
    expect_local(machine.plan("local"), machine)  # unless a local Ray is requested


def test_ray_tmpdir_is_where_ray_leaves_its_address(machine: Machine, live: str, tmp_path: Path) -> None:
    machine.leave_address(live, tmp_path / "ray-tmp")
    expect_local(machine.plan(), machine)
    expect_cluster(machine.plan(RAY_TMPDIR=str(tmp_path / "ray-tmp")), live)


def _theirs(path: Path) -> None:
    os.chown(path, 65534, 65534)


def _their_folder(path: Path) -> None:
    os.chown(path.parent, 65534, 65534)


def _their_folder_under_another_name(path: Path) -> None:
    path.parent.rename(path.parents[1] / "elsewhere")
    path.parent.symlink_to(path.parents[1] / "elsewhere")
    os.lchown(path.parent, 65534, 65534)


def _open_above(path: Path) -> None:
    path.parents[1].chmod(0o777)


def _link(path: Path) -> None:
    path.rename(path.parents[2] / "ours")
    path.symlink_to(path.parents[2] / "ours")


def _hard_link(path: Path) -> None:
    path.with_name("another").hardlink_to(path)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _writable(path: Path) -> None:
    path.chmod(0o666)


def _group_writable(path: Path) -> None:
    os.chown(path, -1, 65534)
    path.chmod(0o664)


PLANTED = [
    _theirs, _their_folder, _their_folder_under_another_name, _open_above, _link, _hard_link, _pipe,
    _writable, _group_writable,
]  # fmt: skip


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another account")
@pytest.mark.parametrize("plant", PLANTED)
def test_an_address_that_another_account_may_have_left_is_ignored(
    machine: Machine, live: str, plant: Callable[[Path], None]
) -> None:
    """The author of the address file chooses which Ray runs our code and reads our images."""
    machine.leave_address(live)
    path = machine.tmp / "ray" / "ray_current_cluster"
    path.parent.chmod(0o777)  # as Ray creates it
    expect_cluster(machine.plan(), live)
    plant(path)
    found = machine.plan(MIPOISON_RAY_TMP=str(machine.home / "m"))
    assert found["plan"]["local"] is True
    assert found["stderr"].count("\n") == 1
    assert f"{path} is ignored" in found["stderr"]
    assert "--address auto: no Ray node runs" in machine.refused("auto")


def test_a_head_made_by_ray_up_may_grow(machine: Machine, live: str) -> None:
    machine.leave_address(live)
    (machine.home / "ray_bootstrap_config.yaml").write_text("cluster_name: x\n")
    found = machine.plan()
    assert found["plan"]["growing"] is True
    assert found["env"]["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "3600"  # machines take minutes to start
    assert machine.plan("local")["plan"]["growing"] is False


def test_how_far_it_may_grow(machine: Machine, live: str) -> None:
    """Ray's file holds JSON: ``max_workers`` of each node type except the head's, and in total."""
    machine.leave_address(live)
    types = {
        "head": {"max_workers": 0, "resources": {"CPU": 4}},
        "big": {"max_workers": 2, "resources": {"CPU": 8, "GPU": 1}},
        "small": {"max_workers": 9, "resources": {"CPU": 2}},
    }
    config = {"max_workers": 5, "head_node_type": "head", "available_node_types": types}
    (machine.home / "ray_bootstrap_config.yaml").write_text(json.dumps(config))
    assert machine.plan()["plan"]["most"] == {"CPU": 2 * 8 + 3 * 2, "GPU": 2}


def test_where_no_such_file_is_the_environment_says_it(machine: Machine, live: str) -> None:
    machine.leave_address(live)
    plan = machine.plan(MIPOISON_GROWS_TO='{"CPU": 70, "GPU": 10}')["plan"]
    assert plan["growing"] is True
    assert plan["most"] == {"CPU": 70, "GPU": 10}
    for wrong in ("70", "[1]", '{"GPU": "x"}', "{"):
        assert f"MIPOISON_GROWS_TO = {wrong!r}" in machine.refused(None, MIPOISON_GROWS_TO=wrong)


def test_a_named_cluster(machine: Machine, live: str) -> None:
    found = machine.plan(live)
    expect_cluster(found, live)
    assert found["text"] == f"the Ray cluster at {live}"
    assert "RAY_AUTH_MODE" not in found["env"]
    expect_cluster(machine.plan(RAY_ADDRESS=live), live)
    expect_cluster(machine.plan("ray://head:10001"), "ray://head:10001")  # left to Ray to check

    (machine.home / ".ray").mkdir()
    (machine.home / ".ray" / "auth_token").write_text("0" * 64)
    assert machine.plan(live)["env"]["RAY_AUTH_MODE"] == "token"


def test_a_named_cluster_beats_the_environment(machine: Machine, live: str, dead: str) -> None:
    expect_cluster(machine.plan(live, RAY_ADDRESS=dead), live)
    expect_local(machine.plan("local", RAY_ADDRESS=live), machine)


@pytest.mark.parametrize(
    "bad",
    ["dead", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999", "a..b:6379", "x:²", "127.0.0.1:0"],
)
def test_nothing_answers_at_the_named_address(machine: Machine, dead: str, bad: str) -> None:
    address = dead if bad == "dead" else bad
    error = machine.refused(address)
    assert f"--address {address}" in error
    assert "host:port" in error


def test_auto_without_a_cluster(machine: Machine, dead: str) -> None:
    assert "--address auto: no Ray node runs" in machine.refused("auto")
    machine.leave_address(dead)
    assert "--address auto: no Ray node runs" in machine.refused("auto")
    expect_local(machine.plan(RAY_ADDRESS="auto"), machine)  # set in the environment, not on the command line


def test_a_stale_variable_is_called_by_its_name(machine: Machine, dead: str) -> None:
    assert "RAY_ADDRESS" in machine.refused(None, RAY_ADDRESS=dead)
