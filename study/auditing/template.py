"""The request template: how an image becomes the body of a request, and where the token comes from.

Shape suffixes: H height, W width, C channels.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template as Substitution
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from PIL import Image

from mipoison.config import ConfigError

PNG = "png"
LAYOUTS = ("chw", "hwc", "hw", "flat")
SCALES = ("unit", "byte")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_IMAGE, _PNG64 = "@image", "@png64"


@dataclass(frozen=True, kw_only=True)
class Template:
    """How the endpoint is asked.

    Attributes:
        url: http or https, without credentials; the values of its query are neither printed nor stored.
        body: ``png`` (the request's body is a PNG file), or JSON in which ``"@image"`` stands for the pixels
            as nested lists and ``"@png64"`` for a PNG file in base64.
        layout: order of the nested lists: ``chw``, ``hwc``, ``hw`` (grey images), or one ``flat`` list in the
            order H, W, C. scale: pixels from 0 to 1 (``unit``), or whole numbers from 0 to 255 (``byte``).
        headers: ``Name: value`` each. ``$NAME`` in a value is read from the environment when a request is
            sent, and stored nowhere.

    Raises:
        ConfigError: a value that no request can be made of.
    """

    url: str
    body: str = PNG
    layout: str = "chw"
    scale: str = "unit"
    headers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            _ = parts.port  # checked when it is read
        except ValueError as error:
            raise ConfigError(f"URL {without_secrets(self.url)!r}: not a URL") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"URL {without_secrets(self.url)!r}: must begin with http:// or https:// and name a host"
            )
        if "@" in parts.netloc:
            raise ConfigError("the URL has credentials in it: give them as --header 'Name: $VARIABLE'")
        for name, value, valid in (("layout", self.layout, LAYOUTS), ("scale", self.scale, SCALES)):
            if value not in valid:
                raise ConfigError(f"{name} {value!r}: choose from {', '.join(valid)}")
        for header in self.headers:
            name, colon, value = header.partition(":")
            if not colon or not _HEADER.fullmatch(name.strip()) or not value.strip():
                raise ConfigError("a header must look like 'Name: value'")
        if self.body != PNG:
            try:
                text = json.dumps(json.loads(self.body))
            except ValueError as error:
                raise ConfigError(f'body: {error}; give png, or JSON with "@image" in it') from error
            if text.count(f'"{_IMAGE}"') + text.count(f'"{_PNG64}"') != 1:
                raise ConfigError('body: "@image" or "@png64" must stand in it once, as a value')

    @property
    def shown_url(self) -> str:
        """The URL as it is printed and stored, see :func:`without_secrets`."""
        return without_secrets(self.url)

    def identity(self) -> dict[str, str]:
        """What makes answers those of another endpoint if it differs.

        The body, the URL's query and the headers are hashed (SHA-256), headers as they are
        given: with ``$NAME`` in them, not with what the environment says.
        """
        return {
            "url": self.shown_url,
            "query": _digest(urlsplit(self.url).query),
            "layout": self.layout,
            "scale": self.scale,
            "body": _digest(self.body),
            "headers": _digest(json.dumps(self.headers)),
        }

    def sent_headers(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The headers with tokens from the environment.

        Raises:
            ConfigError: a variable is not set, or holds what no header may.
        """
        out = {}
        for header in self.headers:
            name, _, value = header.partition(":")
            try:
                filled = Substitution(value.strip()).substitute(environment)
            except (KeyError, ValueError) as error:
                raise ConfigError(f"header {name.strip()!r}: the variable {error} is not set") from error
            if not filled.isprintable() or not filled.isascii():
                raise ConfigError(f"header {name.strip()!r}: its value has characters that are not allowed")
            out[name.strip()] = filled
        return out

    def encode(self, pixels_HWC: np.ndarray) -> tuple[str, bytes]:
        """Content type and body of the request for an image, uint8 with one or three channels."""
        if self.body == PNG:
            return "image/png", png(pixels_HWC)
        return "application/json", json.dumps(self._filled(json.loads(self.body), pixels_HWC)).encode()

    def _filled(self, value: Any, pixels_HWC: np.ndarray) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(inner, pixels_HWC) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._filled(inner, pixels_HWC) for inner in value]
        if value == _PNG64:
            return base64.b64encode(png(pixels_HWC)).decode()
        return self._lists(pixels_HWC) if value == _IMAGE else value

    def _lists(self, pixels_HWC: np.ndarray) -> list[Any]:
        if self.layout == "hw" and pixels_HWC.shape[2] != 1:
            raise ConfigError("layout hw: the images have colours; choose hwc or chw")
        numbers: Any = pixels_HWC if self.scale == "byte" else pixels_HWC / 255
        if self.layout == "chw":
            numbers = numbers.transpose(2, 0, 1)
        elif self.layout == "hw":
            numbers = numbers[..., 0]
        elif self.layout == "flat":
            numbers = numbers.reshape(-1)
        found: list[Any] = numbers.tolist()
        return found


def without_secrets(url: str) -> str:
    """A URL without user info and fragment, and with ``...`` for each value of its query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "..."
    query = "&".join(f"{p.partition('=')[0]}=..." if "=" in p else "..." for p in parts.query.split("&") if p)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def png(pixels_HWC: np.ndarray) -> bytes:
    """A PNG file: grey for one channel, RGB for three."""
    grey = pixels_HWC.shape[2] == 1
    sink = io.BytesIO()
    Image.fromarray(pixels_HWC[..., 0] if grey else pixels_HWC).save(sink, "PNG")
    return sink.getvalue()
