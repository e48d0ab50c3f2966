"""Spot machines with an on-demand fallback, for ``clusters/aws.yaml``.

Ray's autoscaler (2.60) turns to another node type only when a machine that was granted does not come up. A
launch that AWS refuses for want of spot capacity is repeated with the same type for ever, whatever other
types and priorities a file lists. So the fallback sits where the machine is asked for.
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
"""EC2's error codes that say: not as spot, now. Others (permissions, a wrong AMI) no money mends."""


class SpotFirst(AWSNodeProvider):
    """Ray's AWS provider; a type with ``InstanceMarketOptions`` is launched without them where spot is out.

    Named in a cluster file as ``provider: {type: external, module: study.executors.aws_spot.SpotFirst}``. One
    more key there, ``max_on_demand``: so many workers at most run on demand at a time (default 0, like Ray's
    own).
    """

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        most = provider_config.get("max_on_demand", 0)
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise ConfigError(f"provider.max_on_demand = {most!r}: must be a whole number, at least 0")
        super().__init__(provider_config, cluster_name)
        self.max_on_demand = most

    def on_demand_workers(self) -> int:
        """Workers of this cluster that run, or are about to, without being spot."""
        nodes = self.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_WORKER})
        return sum(self.cached_nodes[node].instance_lifecycle != "spot" for node in nodes)

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Launch up to ``count`` machines, as spot if the type says so and AWS has them, else on demand.

        Raises:
            NodeLaunchException: AWS refuses for another reason, or ``max_on_demand`` are running.
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
