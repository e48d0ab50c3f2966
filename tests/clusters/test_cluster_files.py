"""The cluster files: valid by Ray's own schema, and what they promise about access, spot and the head."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTERS = Path(__file__).parents[2] / "clusters"
FILES = sorted(CLUSTERS.glob("*.yaml"))


def read(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CLUSTERS / name).read_text())
    return config


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_ray_accepts_the_file(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = prepare_config(copy.deepcopy(read(path.name)))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]


def test_ray_refuses_a_broken_file() -> None:
    config = read("aws.yaml")
    config["idle_minutes"] = 3
    with pytest.raises(Exception, match="idle_minutes"):
        validate_config(prepare_config(config))


def test_the_head_runs_no_trials_and_gpus_start_from_none() -> None:
    types = read("aws.yaml")["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    workers = {k: v for k, v in types.items() if k != "head"}
    assert all(v["min_workers"] == 0 and v["resources"]["GPU"] == 1 for v in workers.values())
    spot = {k for k, v in workers.items() if "InstanceMarketOptions" in v["node_config"]}
    assert spot == {"gpu-spot"}
    assert len(workers) == 2
    images = {v["node_config"]["ImageId"] for v in types.values()}
    profiles = [v["node_config"]["IamInstanceProfile"] for v in types.values()]
    assert len(images) == 1
    assert all(p == profiles[0] for p in profiles)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_ray_start_wants_the_token_and_the_dashboard_stays_on_loopback(path: Path) -> None:
    config = read(path.name)
    starts = [c for k in ("head_start_ray_commands", "worker_start_ray_commands") for c in config[k]]
    starts = [c for c in starts if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in c for c in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert any(k.endswith(".ray/auth_token") for k in config["file_mounts"])


def test_the_image_is_pinned_to_a_version_that_the_package_accepts() -> None:
    image = read("aws.yaml")["docker"]["image"]
    assert image.startswith("rayproject/ray:2.")
    assert image.endswith("-py311-gpu")
    minor = int(image.split(":2.")[1].split(".")[0])
    assert minor >= 55  # pyproject.toml: ray>=2.55
