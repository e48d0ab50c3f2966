"""The user's own classifier: where it comes from, what it is, and whether it can be attacked at all.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipoison.ask import DYNAMIC, Classifier, undone
from mipoison.config import ConfigError

CHOICES = "module:factory (importable, returns an nn.Module) or file.pt2 (torch.export)"
MOST = 128
"""Images asked at a time, by a service as by a study (see ``mipoison.service.CHUNK``)."""
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class OwnVictim(nn.Module):
    """A classifier that the user brought: images (N, C, H, W) in [0, 1] to logits (N, K), float32. Frozen,
    eval mode, without gradients.

    Attributes:
        name: of the factory, or of the file without its folder. digest: see :func:`load_victim`.
        asked: how it is asked, see :class:`mipoison.ask.Classifier`.
    """

    def __init__(self, module: nn.Module, name: str, digest: str, outputs: str | None = None) -> None:
        super().__init__()
        self.name, self.digest = name, digest
        self.module = module
        self.asked = Classifier(module, name=name, outputs=outputs)
        self.training = False

    def train(self, mode: bool = True) -> OwnVictim:
        """Nothing changes: an exported program has one mode, and a victim is never trained here."""
        return self

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.asked(x_NCHW)


def check_source(source: str, state: str | None) -> None:
    """Whether the two strings can name a classifier; nothing is imported.

    Raises:
        ConfigError: no such form, a file that is not there, or weights for a file that has its own.
    """
    exported = source.endswith(".pt2")
    if not exported and (".py:" in source or not _FACTORY.fullmatch(source)):
        hint = "; write the module's name without .py" if ".py:" in source else ""
        raise ConfigError(f"victim {source!r}: expected {CHOICES}{hint}")
    if exported and state is not None:
        raise ConfigError(f"--victim-state {state!r}: {source} has its own weights; leave it out")
    for name, path in (("--victim", source if exported else None), ("--victim-state", state)):
        if path is not None and not Path(path).expanduser().is_file():
            raise ConfigError(f"{name} {path!r}: no such file (looked in {Path.cwd()})")


def short_name(source: str) -> str:
    """The name that records show: the factory's, or the file's without its folder."""
    return Path(source).name if source.endswith(".pt2") else source


@undone()
def load_victim(source: str, state: str | None = None, *, outputs: str | None = None) -> OwnVictim:
    """Load a classifier onto the CPU.

    Its digest identifies name, weights (dtypes, shapes, bytes) and code (the factory's source file and the
    module's structure; of a ``.pt2`` the whole file), so that records of two classifiers never mix. Modules
    are looked for in the current folder first.

    Args:
        source: ``module:factory``, or a ``.pt2`` file of ``torch.export.save``. Both run code: use your own.
        state: weights for the factory's module: ``.safetensors``, or a state dict of ``torch.save``, loaded
            with ``weights_only=True``.
        outputs: ``logits`` or ``probabilities``; None: logits, refused later where they look like the others.

    Raises:
        ConfigError: it cannot be imported, built or loaded, or was exported for batches of some sizes alone;
            one line.
    """
    check_source(source, state)
    h = hashlib.sha256(short_name(source).encode())
    if source.endswith(".pt2"):
        path = Path(source).expanduser()
        h.update(path.read_bytes())
        try:
            program = torch.export.load(path)
            exported: nn.Module = program.module()
        except Exception as error:
            raise ConfigError(f"victim {source!r}: not a torch.export file ({_one_line(error)})") from error
        _check_batch(program, source)
        return OwnVictim(exported, short_name(source), h.hexdigest()[:16], outputs)
    module, code = _build(source)
    if state is not None:
        _load_state(module, source, state)
    h.update(code + repr(module).encode() + state_digest(module).encode())
    return OwnVictim(module.eval().requires_grad_(False), source, h.hexdigest()[:16], outputs)


def state_digest(module: nn.Module) -> str:
    """SHA-256 (16 hexadecimal digits) of a state dict: names, dtypes, shapes, bytes."""
    h = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        data = value.detach().cpu().contiguous()
        h.update(f"{name}\0{data.dtype}\0{tuple(data.shape)}\0".encode())
        h.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


def repeatable_digest(source: str, state: str | None) -> str:
    """The digest, after loading twice.

    Raises:
        ConfigError: the factory draws other weights each time; or see :func:`load_victim`.
    """
    first, second = load_victim(source, state).digest, load_victim(source, state).digest
    if first != second:
        raise ConfigError(
            f"victim {source!r} has other weights each time it is made: give trained ones with victim_state, "
            "or load them in the factory"
        )
    return first


def _build(source: str) -> tuple[nn.Module, bytes]:
    """The factory's module, and the bytes of the source file that the factory stands in."""
    name, _, attribute = source.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        found: object = importlib.import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        where = (
            f"; looked in {os.getcwd()} and the installed packages" if isinstance(error, ImportError) else ""
        )
        raise ConfigError(f"victim {source!r} cannot be imported: {_one_line(error)}{where}") from error
    if not callable(found):
        raise ConfigError(f"victim {source!r} is a {type(found).__name__}: expected {CHOICES}")
    try:
        module = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise ConfigError(f"victim {source!r}: the factory failed: {_one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"victim {source!r} returned a {type(module).__name__}: expected an nn.Module")
    try:
        code = Path(inspect.getsourcefile(inspect.unwrap(found)) or "").read_bytes()
    except (TypeError, OSError):  # built in, or an object without a file
        code = b""
    return module, code


def _load_state(module: nn.Module, source: str, state: str) -> None:
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
        raise ConfigError(f"victim_state {state!r} does not fit {source}: {_one_line(error)}") from error


def _check_batch(program: torch.export.ExportedProgram, source: str) -> None:
    """Refuse a program that was exported for some batches alone: 1 to 128 images are asked at a time."""
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in inputs]
    for images in (v for v in values if isinstance(v, Tensor) and v.ndim == 4):
        n = images.shape[0]
        if isinstance(n, int):
            sizes = f"batches of {n} alone"
        else:
            bounds = program.range_constraints.get(n.node.expr)
            if bounds is None or (bounds.lower <= 2 and bounds.upper >= MOST):
                continue
            sizes = f"batches of {bounds.lower} to {bounds.upper}"
        raise ConfigError(
            f"victim {source!r} was exported for {sizes}: 1 to {MOST} images are asked at a time; "
            f"export it with a "
            f"dynamic batch: {DYNAMIC}"
        )


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
