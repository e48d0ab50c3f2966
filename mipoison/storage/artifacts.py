"""Content-addressed cache of trained parts: trained once, reused by every trial, process and node.

A file's name is the digest of everything that its content depends on (kind, settings, the split's
fingerprint, this package's source); its first line is the SHA-256 of the rest. What does not match, or is
neither safetensors nor JSON inside, is rebuilt, never loaded: nothing in these files can run code.
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
    """Digest of this package's source files: other code, other artifacts."""
    h = hashlib.sha256()
    package = Path(mipoison.__file__).parent
    for path in sorted(package.rglob("*.py")):
        h.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return h.hexdigest()[:16]


class ArtifactStore:
    """Artifacts below ``artifacts/`` of a storage root.

    Attributes:
        made, reused: how many artifacts this process built and loaded.
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
        """Load a state dict (safetensors), or make and store it. Order and bits are kept.

        Args:
            like: names, shapes and types that it must have; what has others is rebuilt. None: not judged.
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
        """A stored plain value, or None."""
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
        """Store a plain value."""
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
    """A state dict as safetensors, which sorts: the order goes into the metadata. Shared memory is copied."""
    copies = {k: v.contiguous().clone() for k, v in tensors.items()}
    return safetensors.torch.save(copies, metadata={"order": json.dumps(list(tensors))})


def _from_bytes(payload: bytes) -> dict[str, Tensor]:
    tensors = safetensors.torch.load(payload)
    header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
    return {name: tensors[name] for name in json.loads(header["__metadata__"]["order"])}
