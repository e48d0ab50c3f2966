"""The weights of a user's classifier: a file as people have it, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mipoison.config import ConfigError, one_line


def state_digest(module: nn.Module) -> str:
    """SHA-256 (16 hexadecimal digits) of a state dict: names, dtypes, shapes, bytes."""
    h = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        data = value.detach().cpu().contiguous()
        h.update(f"{name}\0{data.dtype}\0{tuple(data.shape)}\0".encode())
        h.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


def load_state(module: nn.Module, source: str, state: str) -> None:
    path = Path(state).expanduser()
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            values: Any = load_file(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
            if isinstance(values, Mapping) and isinstance(values.get("state_dict"), Mapping):
                values = values["state_dict"]
        module.load_state_dict(dict(values))
    except Exception as error:
        raise ConfigError(f"victim_state {state!r} does not fit {source}: {one_line(error)}") from error
