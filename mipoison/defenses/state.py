"""What a fitted defense keeps, as named tensors. Units are saved in this form, and nothing is pickled.

Names are ``part.rest``, where rest is a name in a module's state dict, or a position in a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mipoison.models.inversion import STANDARD_BLOCKS, InversionConfig, InversionNet

State = Mapping[str, Tensor]


def module_state(name: str, module: nn.Module) -> dict[str, Tensor]:
    """A module's state dict, its names prefixed by ``name``."""
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


def list_state(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """A list of tensors as ``name.0``, ``name.1`` and so on."""
    return {f"{name}.{i}": value for i, value in enumerate(tensors)}


def part(state: State, name: str) -> dict[str, Tensor]:
    """The tensors whose names have the prefix ``name``, without it."""
    return {key[len(name) + 1 :]: value for key, value in state.items() if key.startswith(f"{name}.")}


def list_from(state: State, name: str) -> list[Tensor]:
    """Inverse of :func:`list_state`."""
    found = part(state, name)
    return [found[str(i)] for i in range(len(found))]


def decoder_state(name: str, decoder: InversionNet) -> dict[str, Tensor]:
    """An inversion model's state dict, and whether its input is logarithmic, which shapes do not show."""
    return module_state(name, decoder) | {f"{name}.log": torch.tensor(decoder.kind == "log")}


def decoder_from(state: State, name: str) -> InversionNet:
    """Inverse of :func:`decoder_state`: the architecture follows from the weights' shapes.

    Raises:
        KeyError, ValueError, RuntimeError: the tensors are not those of an inversion model.
    """
    tensors = part(state, name)
    log = bool(tensors.pop("log"))
    convolutions = {
        int(k.split(".")[1]): v for k, v in tensors.items() if k.endswith("weight") and v.ndim == 4
    }
    weights = [convolutions[i] for i in sorted(convolutions)]  # safetensors sorts names as text
    blocks = sum(w.shape[2] == 4 for w in weights)  # extra blocks have kernels of 3
    size = {n: s for s, n in STANDARD_BLOCKS.items()}.get(blocks)
    if size is None:
        raise ValueError(f"{blocks} blocks are no inversion model's")
    width, channels = weights[-1].shape[:2]
    config = InversionConfig(
        features="log" if log else "raw", extra_blocks=len(weights) - blocks, width=width
    )
    with torch.device("meta"):
        net = config.make((channels, size, size), weights[0].shape[0])
    net.load_state_dict(tensors, assign=True)
    return net.requires_grad_(False).eval()
