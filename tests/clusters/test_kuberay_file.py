"""The RayJob's fields follow a schema (see ``kuberay_schema.py``), and it does what its comments say."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tyro
import yaml
from kuberay_schema import RAY_JOB, SERVICE_ACCOUNT
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest

from study.executors.environment import autoscaling_limit
from study.settings.study_settings import Arguments

CLUSTERS = Path(__file__).parents[2] / "clusters"
ACCOUNT, JOB = yaml.safe_load_all((CLUSTERS / "kuberay-rayjob.yaml").read_text())
SPEC = JOB["spec"]["rayClusterSpec"]
HEAD = SPEC["headGroupSpec"]
GROUPS = SPEC["workerGroupSpecs"]
PODS = [HEAD["template"]["spec"], *(group["template"]["spec"] for group in GROUPS)]

Change = Callable[[dict[str, Any]], Any]


def check(document: dict[str, Any], schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema, jsonschema.Draft202012Validator)


def test_the_documents_have_the_fields_of_their_kinds() -> None:
    check(ACCOUNT, SERVICE_ACCOUNT)
    check(JOB, RAY_JOB)


CHANGES: dict[str, Change] = {
    "an unknown field of the job": lambda job: job["spec"].update(shutdownAfterJobFinish=True),
    "an unknown field of a pod": lambda job: pod(job).update(serviceAcount="x"),
    "a number where a text belongs": lambda job: head(job)["rayStartParams"].update({"num-cpus": 0}),
    "a text where a number belongs": lambda job: job["spec"].update(ttlSecondsAfterFinished="600"),
    "another version": lambda job: job.update(apiVersion="ray.io/v1alpha1"),
    "a mode of its own": lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(mode="tokens"),
    "a missing bound": lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("maxReplicas"),
    "a quantity in words": lambda job: pod(job)["containers"][0]["resources"]["limits"].update(memory="8 GB"),
    "an environment value that is no text": lambda job: pod(job)["containers"][0]["env"][0].update(value=1),
    "an image without a tag": lambda job: pod(job)["containers"][0].update(image="registry/mipoison"),
}


def head(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]  # type: ignore[no-any-return]


def pod(job: dict[str, Any]) -> dict[str, Any]:
    return head(job)["template"]["spec"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("what", CHANGES)
def test_the_schema_refuses(what: str) -> None:
    job = copy.deepcopy(JOB)
    CHANGES[what](job)
    with pytest.raises(jsonschema.ValidationError):
        check(job, RAY_JOB)


# ---------------------------------------------------------------- rules of the operator, beyond the schema


def test_a_time_to_live_needs_the_shutdown() -> None:
    assert JOB["spec"]["shutdownAfterJobFinishes"] is True
    assert JOB["spec"]["ttlSecondsAfterFinished"] > 0
    assert (
        "clusterSelector" not in JOB["spec"]
    )  # without it the job creates its own cluster, which can be shut down


def test_the_token_needs_a_ray_that_knows_it_and_one_version_everywhere() -> None:
    assert SPEC["authOptions"] == {"mode": "token"}
    major, minor = map(int, SPEC["rayVersion"].split(".")[:2])
    assert (major, minor) >= (2, 52)
    assert f"FROM rayproject/ray:{SPEC['rayVersion']}-py311-gpu" in (CLUSTERS / "Dockerfile").read_text()
    assert len({pod["containers"][0]["image"] for pod in PODS}) == 1
    text = (CLUSTERS / "kuberay-rayjob.yaml").read_text()
    assert "RAY_AUTH_TOKEN" not in text  # the operator sets it, from a Secret


def test_groups_have_names_of_their_own_and_start_from_none() -> None:
    assert SPEC["enableInTreeAutoscaling"] is True
    assert len({group["groupName"] for group in GROUPS}) == len(GROUPS) == 2
    assert all(g["minReplicas"] == g["replicas"] == 0 < g["maxReplicas"] for g in GROUPS)


# ---------------------------------------------------------------- promises


def test_the_head_runs_no_trials_and_workers_have_a_gpu_each() -> None:
    assert HEAD["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in json.dumps(HEAD)
    for group in GROUPS:
        resources = group["template"]["spec"]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
        assert resources["limits"]["nvidia.com/gpu"] == 1


def test_pods_run_as_somebody_without_rights() -> None:
    for pod in PODS:
        assert pod["serviceAccountName"] == ACCOUNT["metadata"]["name"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"secretRef": {"name": "mipoison-s3", "optional": True}} in container["envFrom"]
    assert all(group["template"]["spec"]["automountServiceAccountToken"] is False for group in GROUPS)
    assert HEAD["serviceType"] == "ClusterIP"


def test_every_mount_has_its_volume() -> None:
    for pod in PODS:
        mounted = {mount["name"] for c in pod["containers"] for mount in c.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod.get("volumes", [])}


def test_the_entry_point_is_a_study() -> None:
    words = shlex.split(JOB["spec"]["entrypoint"])
    assert words[:2] == ["python", "/home/ray/mipoison/study/pareto.py"]
    settings = tyro.cli(Arguments, args=words[2:]).checked()
    assert settings.storage.startswith("s3://")
    assert settings.workers == 2


def cpus_and_gpus(group: dict[str, Any]) -> dict[str, float]:
    """The resources that Ray derives from a pod's limits."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    return {"CPU": float(limits["cpu"]), "GPU": float(limits["nvidia.com/gpu"])}


def test_the_study_is_told_how_far_the_cluster_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in HEAD["template"]["spec"]["containers"][0]["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    most = {"CPU": 0.0, "GPU": 0.0}
    for group in GROUPS:
        for name, amount in cpus_and_gpus(group).items():
            most[name] += amount * group["maxReplicas"]
    assert autoscaling_limit() == most


@pytest.mark.parametrize(("pending", "expected"), [({}, "gpu-spot"), ({"gpu-spot": 0.0}, "gpu-on-demand")])
def test_spot_first_and_on_demand_once_spot_stays_pending(pending: dict[str, float], expected: str) -> None:
    """Ray's scheduler with the groups as the operator describes them; ``pending``: rank after a timeout."""
    kinds = {
        group["groupName"]: NodeTypeConfig(
            name=group["groupName"],
            min_worker_nodes=group["minReplicas"],
            max_worker_nodes=group["maxReplicas"],
            resources=cpus_and_gpus(group),
        )
        for group in GROUPS
    }
    bundle = ResourceRequestUtil.make({"CPU": 1, "GPU": 0.5})
    reply = ResourceDemandScheduler(event_logger=None).schedule(
        SchedulingRequest(
            node_type_configs=kinds,
            max_num_nodes=10,
            gang_resource_requests=[GangResourceRequest(requests=[bundle, bundle])],
            disable_launch_config_check=True,
            recoverable_resource_availabilities=pending,
        )
    )
    assert {r.instance_type: r.count for r in reply.to_launch} == {expected: 1}
