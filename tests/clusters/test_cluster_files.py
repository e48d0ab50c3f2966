"""The cluster files: valid by Ray's schema; what they promise about access, spot and the head; what Ray's
autoscaler would start for a study. The README's commands: accepted by Ray's own command line and by ours."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest
from ray.scripts.scripts import cli

from study.executors.environment import autoscaling_limit
from study.settings.study_settings import Arguments

CLUSTERS = Path(__file__).parents[2] / "clusters"
RAY_FILES = ("aws.yaml", "gcp.yaml", "onprem.yaml")
CLOUDS = ("aws.yaml", "gcp.yaml")


def read(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CLUSTERS / name).read_text())
    return config


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


# ---------------------------------------------------------------- Ray's validation


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_accepts_the_file(name: str) -> None:
    config = prepare_config(read(name))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    # What `ray up` writes to the head is read back by the autoscaler there, which prepares it once more.
    AutoscalingConfig(json.loads(json.dumps(config)), skip_content_hash=True)


@pytest.mark.parametrize("name", RAY_FILES)
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["idle_minutes"], 3),
        (["auth", "user"], "x"),
        (["idle_timeout_minutes"], "8"),
        (["rsync_exclude"], "x"),
    ],
)
def test_ray_refuses_a_broken_file(name: str, path: list[str], value: object) -> None:
    config = read(name)
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(Exception, match=path[-1] if path[-1] not in config else str(value)):
        validate_config(prepare_config(config))


# ---------------------------------------------------------------- what the files promise


@pytest.mark.parametrize("name", CLOUDS)
def test_the_head_runs_no_trials_and_gpus_start_from_none(name: str) -> None:
    config = read(name)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["head"]["max_workers"] == 0
    workers = [v for k, v in types.items() if k != config["head_node_type"]]
    assert workers
    assert all(v["min_workers"] == 0 and v["resources"]["GPU"] == 1 for v in workers)
    assert all(v["max_workers"] <= config["max_workers"] for v in workers)


def test_aws_profiles_disks_and_metadata() -> None:
    types = read("aws.yaml")["available_node_types"]
    node = {name: kind["node_config"] for name, kind in types.items()}
    roles = read("aws-iam.yaml")["Resources"]
    made = {r["Properties"].get("InstanceProfileName") for r in roles.values()}
    assert {n["IamInstanceProfile"]["Name"] for n in node.values()} == made - {None}
    assert node["head"]["IamInstanceProfile"] != node["gpu"]["IamInstanceProfile"]
    assert "InstanceMarketOptions" in node["gpu"]
    assert "InstanceMarketOptions" not in node["head"]
    for config in node.values():
        assert all(disk["Ebs"]["Encrypted"] for disk in config["BlockDeviceMappings"])
        assert config["MetadataOptions"]["HttpTokens"] == "required"
        assert "ubuntu" in config["ImageId"]


def test_google_workers_are_spot_and_have_no_rights() -> None:
    worker = read("gcp.yaml")["available_node_types"]["gpu"]["node_config"]
    assert worker["scheduling"]["provisioningModel"] == "SPOT"
    assert (
        worker["scheduling"]["onHostMaintenance"] == "TERMINATE"
    )  # Google cannot migrate machines with GPUs
    assert worker["serviceAccounts"] == []


@pytest.mark.parametrize("name", RAY_FILES)
def test_every_ray_start_wants_the_token_and_the_dashboard_stays_on_loopback(name: str) -> None:
    config = read(name)
    head, worker = (
        [c for c in config[f"{kind}_start_ray_commands"] if "ray start" in c] for kind in ("head", "worker")
    )
    assert len(head) == len(worker) == 1
    assert all("RAY_AUTH_MODE=token" in c for c in head + worker)
    assert "--dashboard-host=127.0.0.1" in head[0]
    assert "--num-cpus=0" in head[0]
    assert any(k.endswith(".ray/auth_token") for k in config["file_mounts"])
    assert not any("auth_token" in c for c in head + worker)  # nor the token itself
    assert ("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=3600" in head[0]) == (name in CLOUDS)
    for command in head + worker:
        assert_ray_accepts(command.partition("ray start")[1] + command.partition("ray start")[2])


@pytest.mark.parametrize("name", CLOUDS)
def test_the_image_is_pinned_to_a_version_that_the_package_accepts(name: str) -> None:
    image = read(name)["docker"]["image"]
    assert image == read("aws.yaml")["docker"]["image"]
    assert re.fullmatch(r"rayproject/ray:2\.\d+\.\d+-py311-gpu", image)
    assert int(image.split(":2.")[1].split(".")[0]) >= 55  # pyproject.toml: ray>=2.55
    version = image.split(":")[1].split("-")[0]
    assert f"FROM {image}" in (CLUSTERS / "Dockerfile").read_text()
    assert f"=={version}" in "".join(read("onprem.yaml")["setup_commands"])


# ---------------------------------------------------------------- what the autoscaler would start


def launches(config: dict[str, Any], groups: int, workers: int, gpus: float, **more: Any) -> dict[str, int]:
    """The machines that Ray's scheduler starts for waiting Train runs (one placement group each)."""
    parsed = AutoscalingConfig(config, skip_content_hash=True)
    bundle = ResourceRequestUtil.make({"CPU": 1, "GPU": gpus})
    gang = [GangResourceRequest(requests=[bundle] * workers) for _ in range(groups)]
    reply = ResourceDemandScheduler(event_logger=None).schedule(
        SchedulingRequest(
            node_type_configs=parsed.get_node_type_configs(),
            max_num_nodes=parsed.get_max_num_nodes(),
            gang_resource_requests=gang,
            disable_launch_config_check=False,
            **more,
        )
    )
    return {r.instance_type: r.count for r in reply.to_launch}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_study_of_two_half_gpu_workers_starts_machines_from_none(name: str) -> None:
    config = prepare_config(read(name))
    assert launches(copy.deepcopy(config), 1, 2, 0.5) == {"gpu": 1}
    assert launches(copy.deepcopy(config), 3, 2, 0.5) == {"gpu": 3}
    assert launches(copy.deepcopy(config), 20, 2, 0.5) == {"gpu": 8}  # max_workers
    assert launches(copy.deepcopy(config), 1, 1, 4) == {}  # no machine has four GPUs


@pytest.mark.parametrize("name", CLOUDS)
def test_the_study_knows_how_far_the_cluster_grows(name: str, tmp_path: Path) -> None:
    assert autoscaling_limit() is None
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(prepare_config(read(name))))
    assert autoscaling_limit() == {"CPU": 64, "GPU": 8}


def test_of_machines_of_ones_own_it_only_knows_that_they_may_come(tmp_path: Path) -> None:
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(prepare_config(read("onprem.yaml"))))
    assert autoscaling_limit() == {}


# ---------------------------------------------------------------- the README's commands


def commands() -> list[str]:
    """The indented lines of the README, with continuation lines joined and comments removed."""
    text = (CLUSTERS / "README.md").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [re.sub(r"\s+#.*$", "", line) for line in lines]


RAY_COMMANDS = [c for c in commands() if c.startswith("ray ")]
STUDIES = [c for c in commands() if "study/pareto.py" in c]


def assert_ray_accepts(command: str) -> None:
    """Ray's own parser accepts the command; nothing is run."""
    words, here = shlex.split(command)[1:], cli
    while hasattr(here, "commands"):
        assert words[0] in here.commands, f"ray has no command {words[0]}: {command}"
        here = here.commands[words.pop(0)]
    here.make_context(here.name, words)


@pytest.mark.parametrize("command", RAY_COMMANDS)
def test_ray_knows_the_readmes_command(command: str) -> None:
    assert_ray_accepts(command)
    for file in re.findall(r"clusters/\S+\.yaml", command):
        assert (CLUSTERS.parent / file).is_file()


def test_an_unknown_flag_would_be_noticed() -> None:
    assert len(RAY_COMMANDS) > 12
    assert len(STUDIES) == 4
    with pytest.raises(Exception, match="--now"):
        assert_ray_accepts("ray up clusters/aws.yaml --now")


def study_arguments(command: str) -> list[str]:
    words = shlex.split(command)
    start = next(i for i, word in enumerate(words) if word.endswith("study/pareto.py"))
    return [word for word in words[start + 1 :] if word != "--"]


@pytest.mark.parametrize("command", STUDIES)
def test_the_study_knows_the_readmes_arguments(command: str) -> None:
    settings = tyro.cli(Arguments, args=study_arguments(command)).checked()
    assert settings.workers == 2
    assert settings.gpus_per_worker == 0.5
