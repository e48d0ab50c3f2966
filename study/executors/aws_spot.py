"""A Ray node provider for AWS that launches on-demand machines when no spot machines are available.

Ray's autoscaler (2.60) tries another node type only when a machine that AWS granted does not start. When AWS
refuses a launch for lack of spot capacity, the autoscaler repeats the same request without end. This node
provider therefore falls back to on-demand machines itself. ``clusters/aws.yaml`` uses it.
"""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import NODE_KIND_WORKER, TAG_RAY_NODE_KIND

from mipoison.config import ConfigError

SPOT = "InstanceMarketOptions"
SPOT_UNAVAILABLE = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientCapacity",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
    }
)
"""EC2 error codes for missing spot capacity. After any other error (permissions, a wrong AMI) an on-demand
launch would fail as well."""


class SpotFirst(AWSNodeProvider):
    """Ray's AWS node provider, which repeats a spot launch on demand when AWS has no spot capacity.

    A cluster file selects it with ``provider: {type: external, module: study.executors.aws_spot.SpotFirst}``.
    The additional key ``max_on_demand`` limits how many on-demand workers run at a time (default 0: none).
    """

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        most = provider_config.get("max_on_demand", 0)
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise ConfigError(f"provider.max_on_demand = {most!r}: must be a whole number, at least 0")
        super().__init__(provider_config, cluster_name)
        self.max_on_demand = most

    def on_demand_workers(self) -> int:
        """The number of this cluster's workers, running or pending, that are not spot instances."""
        nodes = self.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_WORKER})
        return sum(self.cached_nodes[node].instance_lifecycle != "spot" for node in nodes)

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Launch up to ``count`` machines: as the type says, or on demand if AWS has no spot capacity.

        Raises:
            NodeLaunchException: AWS refused for another reason, or ``max_on_demand`` workers already run.
        """
        try:
            return dict(super().create_node(node_config, tags, count))
        except NodeLaunchException as refused:
            if SPOT not in node_config or refused.category not in SPOT_UNAVAILABLE:
                raise
            left = self.max_on_demand - self.on_demand_workers()
            if left <= 0:
                raise
        plain = {key: value for key, value in node_config.items() if key != SPOT}
        return dict(super().create_node(plain, tags, min(count, left)))
