"""``ray up clusters/aws.yaml`` on a simulated AWS: launched machines, open ports, SSH commands, leftovers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from simulated_aws import NO_NAMESPACE, TOKEN

pytest.importorskip("moto.server", reason="moto's server is not installed")

CLUSTERS = Path(__file__).parents[2] / "clusters"
FILE = CLUSTERS / "aws.yaml"
CONFIG = yaml.safe_load(FILE.read_text())
NODES = {name: kind["node_config"] for name, kind in CONFIG["available_node_types"].items()}

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(290)]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """The result of one complete run."""
    with tempfile.TemporaryDirectory(prefix="aws", dir="/tmp", ignore_cleanup_errors=True) as folder:
        program = Path(__file__).with_name("simulated_aws.py")
        done = subprocess.run(
            [sys.executable, str(program), str(FILE), folder],
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
    if done.returncode == NO_NAMESPACE:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr[-5000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["up"]["code"] == 0, result["up"]["output"]
    return result


def machine(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """The machine of a node type."""
    tagged = [
        m
        for m in found["machines"]
        if {"Key": "ray-user-node-type", "Value": kind} in m["Tags"]
        and {"Key": "ray-cluster-name", "Value": "mipoison"} in m["Tags"]
    ]
    assert len(tagged) == 1
    return dict(tagged[0])


def said(found: dict[str, Any]) -> list[str]:
    """The commands sent over SSH, in order, with the quoting removed."""
    return [" ".join(words).replace("'", "").replace('"', "") for words in found["said"]]


def test_the_head_alone_is_launched_and_not_as_spot(found: dict[str, Any]) -> None:
    assert len(found["head"]) == 1
    head = machine(found, "head")
    assert head["InstanceType"] == NODES["head"]["InstanceType"]
    assert head["ImageId"] == NODES["head"]["ImageId"]
    assert "InstanceLifecycle" not in head
    assert head["IamInstanceProfile"]["Arn"].endswith("instance-profile/mipoison-head")


def test_a_worker_is_spot_with_the_lesser_profile(found: dict[str, Any]) -> None:
    assert found["worker"][0] == "SpotFirst"
    assert len(found["machines"]) == 2
    worker, head = machine(found, "gpu"), machine(found, "head")
    assert found["worker"][1:] == [worker["InstanceId"]]
    assert worker["InstanceType"] == NODES["gpu"]["InstanceType"]
    assert worker["ImageId"] == NODES["gpu"]["ImageId"]
    assert worker["InstanceLifecycle"] == "spot"
    assert worker["IamInstanceProfile"]["Arn"].endswith("instance-profile/mipoison-worker")
    for key in ("KeyName", "SecurityGroups", "VpcId"):
        assert worker[key] == head[key]


def test_disks_are_encrypted_and_metadata_wants_a_session(found: dict[str, Any]) -> None:
    assert found["encrypted"] == [True, True]
    for one in found["machines"]:
        assert one["MetadataOptions"]["HttpTokens"] == "required"
        assert one["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert all(disk["Ebs"]["DeleteOnTermination"] for disk in one["BlockDeviceMappings"])


def test_ssh_is_open_and_nothing_else(found: dict[str, Any]) -> None:
    (group,) = found["groups"]
    assert {g["GroupId"] for m in found["machines"] for g in m["SecurityGroups"]} == {group["GroupId"]}
    within, outside = sorted(group["IpPermissions"], key=lambda rule: rule["IpProtocol"])
    assert within["IpProtocol"] == "-1"
    assert [pair["GroupId"] for pair in within["UserIdGroupPairs"]] == [group["GroupId"]]
    assert within["IpRanges"] == within["Ipv6Ranges"] == within["PrefixListIds"] == []
    assert (outside["IpProtocol"], outside["FromPort"], outside["ToPort"]) == ("tcp", 22, 22)
    assert outside["UserIdGroupPairs"] == outside["Ipv6Ranges"] == []


def test_the_key_is_of_rays_making_and_readable_by_the_user_alone(found: dict[str, Any]) -> None:
    assert found["keys"] == ["ray-autoscaler_us-west-2"]
    assert found["key_files"] == [["ray-autoscaler_us-west-2.pem", "0o600"]]
    assert all(m["KeyName"] == "ray-autoscaler_us-west-2" for m in found["machines"])


def test_the_profiles_are_those_of_the_template(found: dict[str, Any]) -> None:
    assert found["profiles"] == {"mipoison-head": ["mipoison-head"], "mipoison-worker": ["mipoison-worker"]}


def test_the_head_is_set_up_in_order(found: dict[str, Any]) -> None:
    lines = said(found)
    wanted = [
        "home/ray/mipoison/",
        "home/ray/.ray/auth_token",
        "usermod -aG docker",
        f"docker pull {CONFIG['docker']['image']}",
        "docker run",
        "pip install --quiet -e /home/ray/mipoison",
        "pip install --quiet boto3",
        "ray stop",
        "ray start --head",
    ]
    places = [next(i for i, line in enumerate(lines) if want in line) for want in wanted]
    assert places == sorted(places)
    run = lines[places[4]]
    assert "--net=host" in run
    assert "auth_token:/home/ray/.ray/auth_token" in run
    start = lines[places[-1]]
    for part in (
        "RAY_AUTH_MODE=token",
        "--num-cpus=0",
        "--dashboard-host=127.0.0.1",
        "RAY_enable_autoscaler_v2=1",
    ):
        assert part in start
    # The path that study/executors/environment.py looks at, in the container.
    assert any("ray:/home/ray/ray_bootstrap_config.yaml" in line for line in lines)
    assert "--autoscaling-config=/home/ray/ray_bootstrap_config.yaml" in start


def test_what_the_head_gets_holds_no_secret(found: dict[str, Any]) -> None:
    sent = found["sent"]
    assert sent["provider"]["module"] == "study.executors.aws_spot.SpotFirst"
    assert sent["provider"]["max_on_demand"] == CONFIG["provider"]["max_on_demand"]
    mounts = sent["file_mounts"]  # from the head to the workers
    assert mounts["/home/ray/.ray/auth_token"] == "/home/ray/.ray/auth_token"
    assert sent["auth"]["ssh_private_key"] == "~/ray_bootstrap_key.pem"
    everything = json.dumps([found["said"], sent, found["up"], found["down"]])
    assert TOKEN not in everything
    assert "PRIVATE KEY" not in everything
    assert "testing" not in json.dumps([found["said"], sent])  # the credentials of the launcher


def test_down_ends_head_and_workers(found: dict[str, Any]) -> None:
    assert found["down"]["code"] == 0, found["down"]["output"]
    assert found["after"] == ["terminated", "terminated"]
