"""Identifies ``.pt2`` files by their bytes. Loading one can run code, so the bytes are compared before
that."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mipoison.config import ConfigError


def is_exported(source: str) -> bool:
    """Whether a victim's source is a ``.pt2`` file, in upper or lower case."""
    return source.lower().endswith(".pt2")


def exported_digest(source: str) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a ``.pt2`` file's name and bytes; nothing is loaded.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = Path(source).expanduser()
    h = hashlib.sha256(path.name.encode())
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                h.update(block)
    except OSError as error:
        raise ConfigError(f"victim {source!r} cannot be read: {error.strerror}") from error
    return h.hexdigest()[:16]


def refuse_other(source: str, expected: str | None) -> None:
    """Refuse a ``.pt2`` file with another digest, before ``torch.export.load`` unpickles it.

    For ``module:factory`` nothing is checked here: its digest includes the module's structure, which is known
    only after the factory has run. The caller compares it then.

    Args:
        source: the victim's source. expected: the digest of the study's victim.

    Raises:
        ConfigError: the digests differ; the file was not loaded.
    """
    if is_exported(source) and (found := exported_digest(source)) != expected:
        raise ConfigError(
            f"victim {source!r} is not the study's: its file's digest is {found}, expected {expected}; "
            "it was not loaded. The file has changed or is another one: start a study of its own"
        )
