"""Reads the privacy label beside a unit: ``label.json``, which ``GET /label`` answers."""

from __future__ import annotations

import json
from typing import NoReturn

from mipoison.config import ConfigError
from mipoison.storage.failures import UnfitError
from mipoison.storage.files import Storage

NAME = "label.json"
MAX_BYTES = 256 * 2**10
"""Largest label."""
MISSING = (
    f"no privacy label: put {NAME} into the unit's folder (mipoison protect writes it) and start the server "
    "anew"
)


def read_label(unit: str) -> bytes | None:
    """The label as JSON in UTF-8; None if there is none.

    Args:
        unit: the unit's folder, or ``s3://bucket/prefix``.

    Raises:
        ConfigError: it is too large, or no object of JSON.
    """
    try:
        found = Storage(unit).read(NAME, MAX_BYTES)
    except UnfitError as error:
        raise ConfigError(
            f"{NAME} beside the unit is no label of at most {MAX_BYTES} bytes: {error}"
        ) from error
    if found is None:
        return None
    try:
        label = json.loads(found.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ConfigError(
            f"{NAME} beside the unit is no JSON ({type(error).__name__}): make it anew"
        ) from error
    if not isinstance(label, dict):
        raise ConfigError(f"{NAME} beside the unit is a {type(label).__name__}, expected an object of JSON")
    return json.dumps(label, ensure_ascii=False).encode()


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
