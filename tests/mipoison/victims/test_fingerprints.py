"""A file that runs code when loaded is known by its bytes, before it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import mipoison.scene
from mipoison.config import ConfigError
from mipoison.victims.fingerprints import exported_digest
from tests.study.records.test_readers_run_nothing import Payload


def test_an_exported_file_of_other_bytes_is_not_loaded(tmp_path: Path) -> None:
    """Given by the reader, and another one than the records': refused before anything unpickles it."""
    marker = tmp_path / "executed"
    torch.save(Payload(marker), tmp_path / "mine.pt2")
    config = mipoison.scene.SceneConfig(victim=str(tmp_path / "mine.pt2"), victim_digest="0" * 16)
    split = mipoison.scene.split_of(mipoison.scene.SceneConfig(limit=100))
    with pytest.raises(ConfigError, match="it was not loaded"):
        mipoison.scene.own_victim(config, split, torch.device("cpu"))
    assert not marker.exists()


def test_the_digest_of_an_exported_file_is_that_of_its_loading(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    batch = torch.export.Dim("n", min=1, max=128)
    program = torch.export.export(net, (torch.rand(2, 1, 4, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    found = exported_digest(str(tmp_path / "net.pt2"))
    assert mipoison.scene.load_victim(str(tmp_path / "net.pt2")).digest == found
