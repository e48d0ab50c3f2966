"""What identifies a file that runs code when it is loaded: its bytes, compared before anything is loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mipoison.config import ConfigError


def is_exported(source: str) -> bool:
    """Whether a victim's name is that of a ``.pt2`` file, in any spelling."""
    return source.lower().endswith(".pt2")


def exported_digest(source: str) -> str:
    """Sixteen hexadecimal digits of a ``.pt2`` file's name and bytes; it is read, not loaded.

    Raises:
        ConfigError: it cannot be read.
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
    """Refuse a ``.pt2`` file of other bytes than expected, before ``torch.export.load`` unpickles it.

    A ``module:factory`` cannot be judged so: its digest is of code, structure and weights together, and the
    structure is known once the factory has run. Its digest is compared when it is there.

    Raises:
        ConfigError: other bytes; the file was not loaded.
    """
    if is_exported(source) and (found := exported_digest(source)) != expected:
        raise ConfigError(
            f"victim {source!r} is not the study's: its file's digest is {found}, expected {expected}; "
            "it was not loaded. The file has changed or is another one: start a study of its own"
        )
