"""API keys: the service knows their SHA-256 alone, by name, from an environment variable.

Keys are random (``secrets.token_urlsafe(32)``), so that a plain hash of one cannot be guessed back.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping

from mipoison.config import ConfigError

VARIABLE = "MIPOISON_API_KEYS"
FORM = 'NAME:SHA256,NAME:SHA256 or {"NAME": "SHA256", ...}, the SHA-256 of each key in hexadecimal'
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_MAX_KEY = 512
"""Longest key that is hashed."""
_OF_NOTHING = frozenset(hashlib.sha256(text).hexdigest() for text in (b"", b"\n", b"\r\n"))
"""SHA-256 of what a shell hashes where the key is missing: such an entry would admit everybody."""


class ApiKeys:
    """Which key is whose.

    Args:
        hashes: name -> SHA-256 of the key, hexadecimal.

    Raises:
        ConfigError: no key, or a name or hash of another form, or one hash twice, or that of an empty key.
            The message repeats neither names nor hashes, as either may be a key that was put into the wrong
            place.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        if not hashes:
            raise ConfigError(f"{VARIABLE} names no key: unset it to serve without keys, or give {FORM}")
        for i, (name, found) in enumerate(hashes.items(), 1):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"{VARIABLE}: the name of a key is 1 to 64 letters, digits, '.', '-', '_'")
            if not isinstance(found, str) or not _HASH.fullmatch(found):
                raise ConfigError(
                    f"{VARIABLE}: entry {i} has no SHA-256 of 64 hexadecimal digits: give name and hash, "
                    "not the key (printf %s KEY | sha256sum)"
                )
            if found.lower() in _OF_NOTHING:
                raise ConfigError(
                    f"{VARIABLE}: entry {i} is the SHA-256 of an empty key, which everybody has: the shell's "
                    'variable KEY was unset; set it, then hash it anew (printf %s "$KEY" | sha256sum)'
                )
        self._hashes = {name: bytes.fromhex(found) for name, found in hashes.items()}
        if len(set(self._hashes.values())) < len(hashes):
            raise ConfigError(f"{VARIABLE}: one key has two names")

    @classmethod
    def from_text(cls, text: str) -> ApiKeys:
        """Read the variable's value.

        Raises:
            ConfigError: it has another form; see the class.
        """
        if text.lstrip().startswith("{"):
            try:
                pairs = json.loads(text, object_pairs_hook=list)
            except (ValueError, RecursionError):
                raise ConfigError(f"{VARIABLE} is malformed JSON: give {FORM}") from None
        else:
            pairs = [[part.strip() for part in entry.partition(":")[::2]] for entry in text.split(",")]
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ConfigError(f"{VARIABLE}: a name has two keys")
        return cls(dict(pairs))

    def __len__(self) -> int:
        return len(self._hashes)

    def name_of(self, key: str) -> str | None:
        """The key's name; None for any other key and for ''. Takes the same time for keys of one length."""
        if not key:
            return None
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest() if len(key) <= _MAX_KEY else b""
        found = None
        for name, known in self._hashes.items():  # all of them, so that the time tells no position
            if hmac.compare_digest(digest, known):
                found = name
        return found
