"""Content-addressed cache of trained parts: trained once, reused by every trial, process and node.

A file's name is the digest of everything that its content depends on (kind, settings, the split's
fingerprint, this package's source); its first line is the SHA-256 of the rest. What does not match is
rebuilt, never loaded.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mipoison.config import digest
from mipoison.storage import Storage

log = logging.getLogger(__name__)


@functools.cache
def source_fingerprint() -> str:
    """Digest of this package's source files: other code, other artifacts."""
    h = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        h.update(
            path.relative_to(Path(__file__).parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0"
        )
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
        self, kind: str, spec: dict[str, Any], make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Load a state dict with ``weights_only=True``, or make and store it."""
        payload = self._load(kind, spec)
        if payload is not None:
            return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        value = {k: v.detach().cpu() for k, v in make().items()}
        buffer = io.BytesIO()
        torch.save(value, buffer)
        self._store(kind, spec, buffer.getvalue())
        return value

    def find_json(self, kind: str, spec: dict[str, Any]) -> Any | None:
        """A stored plain value, or None."""
        payload = self._load(kind, spec)
        return None if payload is None else json.loads(payload)

    def put_json(self, kind: str, spec: dict[str, Any], value: Any) -> None:
        """Store a plain value."""
        self._store(kind, spec, json.dumps(value, allow_nan=False).encode())

    def _load(self, kind: str, spec: dict[str, Any]) -> bytes | None:
        name = self.name(kind, spec)
        data = self.storage.read(name)
        if data is None:
            return None
        head, _, payload = data.partition(b"\n")
        if head.decode("ascii", "replace") != hashlib.sha256(payload).hexdigest():
            log.warning("artifact %s does not match its hash (truncated or altered): rebuilding it", name)
            return None
        self.reused += 1
        return payload

    def _store(self, kind: str, spec: dict[str, Any], payload: bytes) -> None:
        self.made += 1
        self.storage.write(
            self.name(kind, spec), hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
        )
