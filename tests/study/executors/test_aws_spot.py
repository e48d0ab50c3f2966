"""SpotFirst on a simulated EC2 that refuses spot instances: it launches on-demand instances instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

moto = pytest.importorskip("moto")
boto3 = pytest.importorskip("boto3")
botocore = pytest.importorskip("botocore")

from ray.autoscaler.node_launch_exception import NodeLaunchException  # noqa: E402
from ray.autoscaler.tags import NODE_KIND_WORKER, TAG_RAY_NODE_KIND  # noqa: E402

from mipoison.config import ConfigError  # noqa: E402
from study.executors.aws_spot import SPOT, SpotFirst  # noqa: E402

REGION = "us-west-2"
TAGS = {TAG_RAY_NODE_KIND: NODE_KIND_WORKER}


class Refusing:
    """An EC2 resource that refuses launches with AWS's error codes: of spot instances, or all."""

    def __init__(self, ec2: Any, code: str, all_kinds: bool = False) -> None:
        self.ec2, self.code, self.all_kinds, self.asked = ec2, code, all_kinds, list[str]()

    def create_instances(self, **request: Any) -> Any:
        self.asked.append("spot" if SPOT in request else "on demand")
        if self.code and (self.all_kinds or SPOT in request):
            raise botocore.exceptions.ClientError(
                {"Error": {"Code": self.code, "Message": "none"}}, "RunInstances"
            )
        # EC2 launches as many instances as it can; this simulation launches as few as allowed.
        return self.ec2.create_instances(**request | {"MinCount": request["MaxCount"]})


@pytest.fixture
def subnet(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    from ray.autoscaler._private.aws import utils

    utils.resource_cache.cache_clear()
    with moto.mock_aws():
        yield next(iter(boto3.resource("ec2", REGION).subnets.all())).id
    utils.resource_cache.cache_clear()


def provider(code: str, most: int, **options: Any) -> tuple[SpotFirst, Refusing]:
    made = SpotFirst(
        {"type": "external", "region": REGION, "cache_stopped_nodes": False, "max_on_demand": most}, "c"
    )
    made.ec2_fail_fast = Refusing(made.ec2, code, **options)
    return made, made.ec2_fail_fast


def node(subnet: str, spot: bool = True) -> dict[str, Any]:
    config = {"InstanceType": "g5.2xlarge", "ImageId": "ami-12345678", "SubnetIds": [subnet]}
    return config | ({SPOT: {"MarketType": "spot"}} if spot else {})


def kinds(found: SpotFirst) -> list[str]:
    """The cluster's workers in EC2's list."""
    listed = [found.cached_nodes[i] for i in found.non_terminated_nodes(dict(TAGS))]
    return sorted(machine.instance_lifecycle or "on demand" for machine in listed)


def test_spot_where_there_is_some(subnet: str) -> None:
    found, ec2 = provider("", 2)
    assert len(found.create_node(node(subnet), dict(TAGS), 3)) == 3
    assert kinds(found) == ["spot"] * 3
    assert found.on_demand_workers() == 0
    assert ec2.asked == ["spot"]


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded"])
def test_on_demand_where_there_is_none_up_to_the_limit(subnet: str, code: str) -> None:
    found, ec2 = provider(code, 2)
    config = node(subnet)
    assert len(found.create_node(config, dict(TAGS), 5)) == 2
    assert kinds(found) == ["on demand"] * 2
    assert config == node(subnet)  # the next launch asks for spot again
    with pytest.raises(NodeLaunchException):
        found.create_node(config, dict(TAGS), 1)
    assert ec2.asked[-1] == "spot"
    ec2.code = ""
    found.create_node(config, dict(TAGS), 2)
    assert kinds(found) == ["on demand"] * 2 + ["spot"] * 2
    # Once one has ended there is room for another.
    ended = next(i for i in found.cached_nodes if found.cached_nodes[i].instance_lifecycle != "spot")
    found.terminate_node(ended)
    ec2.code = code
    assert len(found.create_node(config, dict(TAGS), 5)) == 1


def test_no_fallback_by_default_like_rays_own(subnet: str) -> None:
    found = SpotFirst({"type": "external", "region": REGION, "cache_stopped_nodes": False}, "c")
    found.ec2_fail_fast = Refusing(found.ec2, "InsufficientInstanceCapacity")
    with pytest.raises(NodeLaunchException) as refused:
        found.create_node(node(subnet), dict(TAGS), 1)
    assert refused.value.category == "InsufficientInstanceCapacity"
    assert kinds(found) == []


def test_an_error_that_money_does_not_mend_is_reported(subnet: str) -> None:
    found, ec2 = provider("UnauthorizedOperation", 2)
    with pytest.raises(NodeLaunchException, match="UnauthorizedOperation"):
        found.create_node(node(subnet), dict(TAGS), 1)
    assert set(ec2.asked) == {"spot"}


def test_a_head_or_an_on_demand_type_is_not_asked_for_twice(subnet: str) -> None:
    found, ec2 = provider("InsufficientInstanceCapacity", 2, all_kinds=True)
    with pytest.raises(NodeLaunchException):
        found.create_node(node(subnet, spot=False), dict(TAGS), 1)
    assert set(ec2.asked) == {"on demand"}


@pytest.mark.parametrize("most", [-1, 1.5, "2", True])
def test_a_limit_that_is_no_number(most: object) -> None:
    with pytest.raises(ConfigError, match=r"provider\.max_on_demand = .*at least 0"):
        SpotFirst({"type": "external", "region": REGION, "max_on_demand": most}, "c")
