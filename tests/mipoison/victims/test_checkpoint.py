"""Checkpoint files: no code of theirs runs; damage, and archives of programs, are one line."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.victims.weights import load_state
from tests.mipoison.victims.helpers import Net, equal, load, one_clear_line, pre


class Planted:
    def __init__(self, function: Callable[..., Any], argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [exec, eval, os.system])
@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_of_a_file_runs(
    function: Callable[..., Any], zipped: bool, state: dict[str, Tensor], tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    text = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w')"
    held = {"state_dict": state, "x": Planted(function, text)}
    torch.save(held, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    blocked = function is os.system or not zipped
    with pytest.raises(ConfigError, match="whose code is not run here") if blocked else nullcontext():
        load_state(Net(), "net:make", str(tmp_path / "w.pt"))
    assert not marker.exists()


def test_what_stands_beside_a_frameworks_model_is_named(
    state: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = {"state_dict": pre("model.", state) | {"loss.weight": torch.ones(3)}}
    with caplog.at_level(logging.WARNING):
        assert equal(load(tmp_path, held), state)
    assert "no part of net:make: loss.weight" in caplog.text


def _damaged(state: dict[str, Tensor], tmp_path: Path) -> dict[str, tuple[bytes, str]]:
    torch.save(state, tmp_path / "x.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(state, tmp_path / "p4.pt", pickle_protocol=4)
    data, old, four = ((tmp_path / name).read_bytes() for name in ("x.pt", "old.pt", "p4.pt"))
    tensors = safetensors.torch.save(state)
    return {
        "empty": (b"", "is empty (0 bytes)"),
        "text": (b"hello world", "no file of torch.save"),
        "page": (b"<!DOCTYPE html><html>Not found</html>", "no file of torch.save"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "no file of torch.save"),
        "half": (data[: len(data) // 2], "truncated or damaged"),
        "the end is missing": (data[:-20], "truncated or damaged"),
        "the end is missing, old format": (old[:-10], "truncated or damaged"),
        "half of safetensors": (tensors[:-50], "damaged or no safetensors file"),
        "pickle": (pickle.dumps(state), "cannot be read"),
        "another protocol": (four, "pickle protocol"),
    }


def test_damaged_files_and_other_things_are_one_line(state: dict[str, Tensor], tmp_path: Path) -> None:
    for name, (data, told) in _damaged(state, tmp_path).items():
        file = tmp_path / f"w{len(name)}.pt"
        file.write_bytes(data)
        with pytest.raises(ConfigError) as info:
            load_state(Net(), "net:make", str(file))
        assert told in one_clear_line(str(info.value)), name
    with pytest.raises(ConfigError, match="is a folder: name the file"):
        load_state(Net(), "net:make", str(tmp_path))
    with pytest.raises(ConfigError, match="no such file"):
        load_state(Net(), "net:make", str(tmp_path / "nothing.pt"))


def test_archives_of_programs_are_told_apart(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "w.pt2")
    for name, told in (("script.pt", "TorchScript archive"), ("w.pt2", "give it as the victim itself")):
        with pytest.raises(ConfigError, match=told):
            load_state(nn.Linear(2, 2), "net:make", str(tmp_path / name))
