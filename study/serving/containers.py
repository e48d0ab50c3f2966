"""Strips untrusted PNG and JPEG files to their image before a decoder reads them.

A decoder reads everything in a file: compressed text and colour profiles that unpack to megabytes, thousands
of empty chunks, further frames. None of that is needed for the image.
"""

from __future__ import annotations

import math
import struct
import zlib

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
MAX_PARTS = 128
"""Most chunks of a PNG, most segments before a JPEG's scan: a camera's file has some tens."""
MAX_SCANS = 64
"""Most scans of a JPEG: a progressive one has about ten, and every scan passes over all of the image."""
FEW_SCANS = 16
"""Scans that a JPEG may have whatever its size."""
MAX_SCANNED = 2**24
"""With more scans than that, most pixels of all scans together."""
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"eXIf")
"""Chunks that are kept, in their order before IDAT: they give the pixels' format and the orientation."""
_ANIMATION = b"acTL"
_SCAN = b"\xff\xda"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG's frame header, which has the size."""
_WITHOUT_LENGTH = frozenset([*range(0xC0), *range(0xD0, 0xDA)])
"""Markers of a JPEG without a length, or undefined ones: none may come before the first scan."""


class ContainerError(ValueError):
    """A file is not a valid PNG or JPEG, or has more parts than allowed. The message is one line."""


def stripped(body: bytes, max_pixels: int) -> tuple[str, bytes]:
    """Return Pillow's name of the format, and the file reduced to what its image needs.

    Args:
        max_pixels: pixels of the largest image that the caller will decode.

    Raises:
        ContainerError: neither PNG nor JPEG, damaged, animated, or with too many parts.
    """
    if body.startswith(PNG):
        return "PNG", _stripped_png(body)
    if body.startswith(JPEG):
        _count_scans(body, max_pixels)
        _count_segments(body)
        return "JPEG", body
    raise ContainerError("neither a PNG nor a JPEG file by its first bytes")


def declared_pixels(body: bytes) -> int:
    """Pixels that a PNG or JPEG file declares in its header, without decoding it; 0 if none are found.

    For an estimate of what a file costs: the header is not checked.
    """
    if body.startswith(PNG):
        return math.prod(struct.unpack_from(">II", body, 16)) if body[12:16] == b"IHDR" and body[23:] else 0
    at, most = 2, 0
    for _ in range(MAX_PARTS):
        if body[at : at + 1] != b"\xff" or at + 9 > len(body):
            break
        marker, (length,) = body[at + 1], struct.unpack_from(">H", body, at + 2)
        if marker in _FRAMES:
            most = max(most, math.prod(struct.unpack_from(">HH", body, at + 5)))
        if marker == _SCAN[1]:
            break
        at += 1 if marker == 0xFF else 2 + length
    return most


def _stripped_png(body: bytes) -> bytes:
    kept: dict[bytes, bytes] = {}
    data: list[bytes] = []
    at = len(PNG)
    for _ in range(MAX_PARTS):
        if at + 12 > len(body):
            raise ContainerError("a PNG file that ends early")
        (length,) = struct.unpack_from(">I", body, at)
        kind, end = body[at + 4 : at + 8], at + 12 + length
        if end > len(body):
            raise ContainerError("a PNG file that ends early")
        content = body[at + 8 : end - 4]
        (check,) = struct.unpack_from(">I", body, end - 4)
        at = end
        if kind == b"IEND":
            break
        if kind == _ANIMATION:
            raise ContainerError("an animated PNG: send one image")
        if kind != b"IDAT" and kind not in _KEPT:
            continue
        if zlib.crc32(kind + content) != check:
            raise ContainerError("a damaged PNG file")
        if kind == b"IDAT":
            data.append(content)
        else:
            if kind in kept:
                raise ContainerError(f"a PNG file with two {kind.decode()} chunks")
            if kind != b"IHDR" and b"IHDR" not in kept:
                raise ContainerError("a PNG file that does not begin with IHDR")
            kept[kind] = content
    else:
        raise ContainerError(f"a PNG file of more than {MAX_PARTS} chunks")
    if b"IHDR" not in kept or not data:
        raise ContainerError("a PNG file without an image")
    parts = [
        *((kind, kept[kind]) for kind in _KEPT if kind in kept),
        (b"IDAT", b"".join(data)),
        (b"IEND", b""),
    ]
    return PNG + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _count_scans(body: bytes, max_pixels: int) -> None:
    """Raise ContainerError if a JPEG has too many scans, wherever a decoder may find them.

    The scan marker's two bytes are counted in the whole file: every scan begins with them, and compressed
    data never contain them.
    """
    most = max(FEW_SCANS, min(MAX_SCANS, MAX_SCANNED // max_pixels))
    if body.count(_SCAN) > most:
        raise ContainerError(f"a JPEG file of more than {most} scans")


def _count_segments(body: bytes) -> None:
    """Raise ContainerError if a JPEG has too many or damaged segments before its first scan."""
    at = 2
    for _ in range(MAX_PARTS):
        if body[at : at + 1] != b"\xff" or at + 4 > len(body):
            raise ContainerError("a damaged JPEG file")
        marker = body[at + 1]
        if marker == _SCAN[1]:
            return
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", body, at + 2)
        if marker in _WITHOUT_LENGTH or length < 2:
            raise ContainerError("a damaged JPEG file")
        at += 2 + length
    raise ContainerError(f"a JPEG file of more than {MAX_PARTS} segments")
