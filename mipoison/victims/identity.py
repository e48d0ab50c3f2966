"""Identifies a classifier by a digest of its weights and structure.

Wrappers that only forward calls (DataParallel, compiled modules and others) and buffers that only count calls
do not change the digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _EXTRA_STATE_KEY_SUFFIX
from torch.nn.parameter import is_lazy

from mipoison.config import ConfigError

WRAPPERS = {
    "module": ("DataParallel", "DistributedDataParallel", "AveragedModel"),
    "_orig_mod": ("OptimizedModule",),
    "_module": ("GradSampleModule", "GradSampleModuleFastGradientClipping", "DPDDP"),
    "_fsdp_wrapped_module": ("FullyShardedDataParallel",),
    "_checkpoint_wrapped_module": ("CheckpointWrapper",),
}
"""Attribute in which a wrapper keeps the wrapped module -> names of the wrapper classes that use it."""
COUNTERS = ("num_batches_tracked",)
"""Last part of the names of buffers that count calls and do not affect outputs."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def canonical(name: str) -> str:
    """The name of a module or state-dict entry without the parts that wrappers add, at any position."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def counts_calls(name: str) -> bool:
    """Whether an entry of a state dict only counts calls."""
    return name.rpartition(".")[2] in COUNTERS


def entry_digests(module: nn.Module) -> dict[str, str]:
    """SHA-256 of each entry of the state dict, by canonical name; counters are left out.

    Non-persistent buffers are not part of a state dict.

    Raises:
        ConfigError: parameters of a lazy layer that have no values yet.
    """
    found: dict[str, str] = {}
    state = module.state_dict()
    short = len({canonical(name) for name in state}) == len(state)
    for name, value in state.items():
        if not counts_calls(name):
            h = hashlib.sha256()
            _hash(h, value, name)
            found[canonical(name) if short else name] = h.hexdigest()
    return found


def state_digest(module: nn.Module, *, without: Collection[str] = ()) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a state dict: names, dtypes, shapes and bytes.

    Args:
        without: canonical names of entries to leave out: those that change whenever the classifier is called.
    """
    h = hashlib.sha256()
    for name, value in sorted(entry_digests(module).items()):
        if name not in without:
            h.update(f"{name}\0{value}\0".encode())
    return h.hexdigest()[:16]


def running_entries(module: nn.Module, before: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the buffers and extra states that changed while a classifier was called.

    Args:
        before: the module's :func:`entry_digests` before the calls.

    Raises:
        ConfigError: parameters changed too.
    """
    after = entry_digests(module)
    changed = sorted(name for name in before if after.get(name) != before[name])
    running = {canonical(name) for name, _ in module.named_buffers(remove_duplicate=False)}
    weights = [
        name
        for name in changed
        if canonical(name) not in running and not name.endswith(_EXTRA_STATE_KEY_SUFFIX)
    ]
    if weights:
        raise ConfigError(
            f"the classifier's weights change while it is asked ({', '.join(weights[:3])}): a unit is fitted "
            "for weights that stay; switch that off in eval mode, and keep what only counts or averages in "
            "buffers (register_buffer)"
        )
    return tuple(changed)


def structure(module: nn.Module) -> str:
    """Names, classes and settings of a module and its submodules as text, without wrappers and addresses."""
    lines = []
    for name, part in module.named_modules(remove_duplicate=False):
        if type(part).__name__ not in {kind for kinds in WRAPPERS.values() for kind in kinds}:
            lines.append(f"{canonical(name)}: {type(part).__qualname__}({part.extra_repr()})")
    return _ADDRESS.sub("", "\n".join(lines))


def earlier_state_digest(module: nn.Module) -> str | None:
    """:func:`state_digest` as versions before 0.1.0 computed it, to recognise their units and studies.

    Returns:
        The digest, or None for state dicts that they could not handle.
    """
    h = hashlib.sha256()
    try:
        for name, value in sorted(module.state_dict().items()):
            data = value.detach().cpu().contiguous()
            h.update(f"{name}\0{data.dtype}\0{tuple(data.shape)}\0".encode())
            h.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    except (AttributeError, RuntimeError, TypeError, ValueError, NotImplementedError):
        return None
    return h.hexdigest()[:16]


def _hash(h: Any, value: Any, name: str) -> None:
    """Add a state-dict value to a hash: a tensor of any kind, a container, or another plain value."""
    if isinstance(value, Tensor):
        _hash_tensor(h, value, name)
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            h.update(f"{key}\0".encode())
            _hash(h, value[key], name)
    elif isinstance(value, list | tuple):
        h.update(f"{len(value)}\0".encode())
        for item in value:
            _hash(h, item, name)
    else:
        h.update(_ADDRESS.sub("", f"{type(value).__name__} {value!r}\0").encode())


def _hash_tensor(h: Any, value: Tensor, name: str) -> None:
    if is_lazy(value):
        raise ConfigError(
            f"the classifier's {name} has no values yet (a lazy layer): ask it once before, in the factory"
        )
    data = value.detach().cpu()
    h.update(f"{data.dtype}\0{tuple(data.shape)}\0{data.layout}\0".encode())
    if data.is_quantized:
        if data.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            h.update(f"{data.q_scale()!r}\0{data.q_zero_point()!r}\0".encode())
        else:
            _hash_tensor(h, data.q_per_channel_scales(), name)
            _hash_tensor(h, data.q_per_channel_zero_points(), name)
        data = data.int_repr()
    if data.layout is not torch.strided:
        data = data.to_dense()
    data = data.resolve_conj().resolve_neg().contiguous()
    h.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
