"""What a request may send, told by its first bytes, and how much of it; the error that answers anything else.

The first bytes decide what a body is. Its Content-Type counts only for multipart forms, whose header holds
the boundary, and for bodies whose first bytes say nothing. Nothing here imports torch or Pillow.
"""

from __future__ import annotations

import math
from typing import Any

from study.serving.containers import JPEG, PNG

MAX_BYTES = 8 * 2**20
"""Largest body of all, whatever the images' shape."""
MAX_IMAGES = 256
"""Most images of one request."""
RESIZED_PIXELS = 4 * 2**20
"""Most pixels of a picture that is read in order to be resized."""
FORM = "multipart/form-data"
FORMATS = {
    "image/png": "one image",
    "image/jpeg": "one image",
    "application/x-npy": "an array (N, C, H, W) or (C, H, W), uint8 or float in [0, 1]",
    "application/json": '{"images": nested lists (N, C, H, W) or (C, H, W) of numbers in [0, 1]}',
    FORM: "files, each of one of the other kinds: curl -F file=@a.png -F file=@b.png",
}
NPY = b"\x93NUMPY"
NPY_HEADER = 10_000
"""Largest header of an .npy file that numpy reads."""
SNIFFED = 512
"""Bytes at a body's start that tell what it is."""
_NUMBER = 32
"""Most bytes of a number in JSON, with comma and white space: 17 digits, sign, exponent."""
_PICTURE_EXTRAS = 64 * 2**10
"""Bytes that a picture file may have besides its pixels: a colour profile, metadata of a camera."""
_UTF8 = ("", "utf-8", "utf8", "us-ascii", "ascii")
_BLANK = b" \t\r\n"

Shape = tuple[int, int, int]


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status: 400, 401, 404, 405, 408, 411, 413, 415, 422, 429, 500 or 503.
        more: further fields of the answer, beside ``error``.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)  # both arguments, so that pickling between processes works
        self.status, self.message = status, message
        self.more: dict[str, Any] = {}
        self.headers: list[tuple[bytes, bytes]] = []

    def __str__(self) -> str:
        return self.message


def stated_kind(content_type: str) -> str | None:
    """The media type in a Content-Type header if it is one of FORMATS, else None.

    Raises:
        RequestError: 415 for JSON in a character set other than UTF-8.
    """
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if kind == "application/json" and name.strip() == "charset":
            charset = value.strip().strip('"')
            if charset not in _UTF8:
                raise RequestError(415, f"charset {charset[:40]!r}: JSON is UTF-8")
    return kind if kind in FORMATS else None


def content_kind(content_type: str, start: bytes) -> str:
    """What a body is: one of FORMATS, by its first bytes, else by its header.

    Args:
        start: at least the first :data:`SNIFFED` bytes of the body, or all of it.

    Raises:
        RequestError: 415 if neither tells.
    """
    stated = stated_kind(content_type)
    if stated == FORM:
        return FORM
    for kind, magic in (("image/png", PNG), ("image/jpeg", JPEG), ("application/x-npy", NPY)):
        if start.startswith(magic):
            return kind
    if start[:SNIFFED].removeprefix(b"\xef\xbb\xbf").lstrip(_BLANK)[:1] in (b"{", b"["):
        return "application/json"
    if stated is None:
        given = content_type.split(";")[0].strip()[:80]
        raise RequestError(
            415, f"neither its first bytes nor its content type {given!r} tell one of: {', '.join(FORMATS)}"
        )
    return stated


def byte_bound(kind: str | None, image_shape: Shape, *, resized: bool = False) -> int:
    """Largest body of this kind that can hold as many images as a request may have; None: of any kind.

    Args:
        resized: whether pictures of another size are resized, and so may be larger.
    """
    numbers = MAX_IMAGES * math.prod(image_shape)
    if kind == "application/json":
        most = 1024 + _NUMBER * numbers
    elif kind == "application/x-npy":
        most = NPY_HEADER + 8 * numbers
    elif kind in (FORM, None) or resized:
        most = MAX_BYTES
    else:  # four channels of 16 bits, uncompressed
        most = _PICTURE_EXTRAS + 16 * image_shape[1] * image_shape[2]
    return min(most, MAX_BYTES)


def too_many_bytes(kind: str | None, image_shape: Shape, *, resized: bool = False) -> RequestError:
    """The error for a body over the bound."""
    shape = "x".join(map(str, image_shape))
    most = byte_bound(kind, image_shape, resized=resized)
    return RequestError(413, f"body over {most} bytes, the most for {kind or 'any content'} of {shape}")
