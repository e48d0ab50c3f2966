"""Content-addressed cache of trained networks: each is trained once and reused by all trials and machines.

A file's name is a digest of everything that its content depends on (kind, settings, the split's fingerprint,
this package's source). Its first line is the SHA-256 of the rest, which is safetensors or JSON, so that
loading a file never runs code. A file that does not match its hash or has another format is made again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

import mipoison
from mipoison.config import digest
from mipoison.storage.files import Storage, UnfitError

log = logging.getLogger(__name__)


@functools.cache
def source_fingerprint() -> str:
    """Sixteen hexadecimal digits of the SHA-256 of this package's source files.

    It is part of every artifact's name, so that changed code does not load artifacts of earlier code.
    """
    h = hashlib.sha256()
    package = Path(mipoison.__file__).parent
    for path in sorted(package.rglob("*.py")):
        h.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return h.hexdigest()[:16]


class ArtifactStore:
    """The artifacts in the folder ``artifacts/`` of a storage.

    Attributes:
        made, reused: number of artifacts that this object made and loaded.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.made = 0
        self.reused = 0

    def name(self, kind: str, spec: dict[str, Any]) -> str:
        """File name of an artifact: ``artifacts/<kind>-<digest>``."""
        return f"artifacts/{kind}-{digest({'kind': kind, 'source': source_fingerprint(), 'spec': spec})[:32]}"

    def tensors(
        self,
        kind: str,
        spec: dict[str, Any],
        make: Callable[[], dict[str, Tensor]],
        like: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Load a state dict (safetensors), or make and store it. The order of its entries is kept.

        Args:
            kind: kind of artifact, part of the file's name. spec: the settings that it depends on.
            make: makes the state dict if it is not stored.
            like: a state dict of the same names, shapes and dtypes; a stored one that differs is made again.
                None accepts any.
        """
        payload = self._load(kind, spec)
        if payload is not None:
            try:
                value = _from_bytes(payload)
                if like is not None and _form(value) != _form(like):
                    raise ValueError("tensors of other names, shapes or types")
            except (SafetensorError, ValueError, KeyError, TypeError) as error:
                self._reject(kind, spec, f"holds no tensors ({type(error).__name__})")
            else:
                self.reused += 1
                return value
        value = {k: v.detach().cpu() for k, v in make().items()}
        self._store(kind, spec, _to_bytes(value))
        return value

    def find_json(self, kind: str, spec: dict[str, Any]) -> Any | None:
        """Load a stored JSON value; None if there is none."""
        payload = self._load(kind, spec)
        if payload is None:
            return None
        try:
            value = json.loads(payload)
        except ValueError:
            self._reject(kind, spec, "holds no JSON")
            return None
        self.reused += 1
        return value

    def put_json(self, kind: str, spec: dict[str, Any], value: Any) -> None:
        """Store a JSON value; ValueError for one with NaN or infinity."""
        self._store(kind, spec, json.dumps(value, allow_nan=False).encode())

    def _load(self, kind: str, spec: dict[str, Any]) -> bytes | None:
        name = self.name(kind, spec)
        try:
            data = self.storage.read(name)
        except UnfitError as error:
            self._reject(kind, spec, f"cannot be read ({error.__cause__})")
            return None
        if data is None:
            return None
        head, _, payload = data.partition(b"\n")
        if head.decode("ascii", "replace") != hashlib.sha256(payload).hexdigest():
            self._reject(kind, spec, "does not match its hash (truncated or altered)")
            return None
        return payload

    def _reject(self, kind: str, spec: dict[str, Any], reason: str) -> None:
        log.warning("artifact %s %s: rebuilding it", self.name(kind, spec), reason)

    def _store(self, kind: str, spec: dict[str, Any], payload: bytes) -> None:
        self.made += 1
        self.storage.write(
            self.name(kind, spec), hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
        )


def _form(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """A state dict as safetensors. That format sorts the names, so their order is stored in the metadata.

    Tensors are copied, because safetensors refuses those that share memory.
    """
    copies = {k: v.contiguous().clone() for k, v in tensors.items()}
    return safetensors.torch.save(copies, metadata={"order": json.dumps(list(tensors))})


def _from_bytes(payload: bytes) -> dict[str, Tensor]:
    tensors = safetensors.torch.load(payload)
    header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
    return {name: tensors[name] for name in json.loads(header["__metadata__"]["order"])}
