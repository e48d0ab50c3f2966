"""Damaged or oversized PNG and JPEG files are refused before they are decoded."""

from __future__ import annotations

import io
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from worst_bodies import PIXELS, chunk, encoded

from study.serving import containers
from study.serving.request_parsing import RequestError, read_images

GREY = (1, 16, 16)
SCAN = b"\xff\xda"


def refused(kind: str, body: bytes, why: str | None = None) -> int:
    before = time.thread_time()
    with pytest.raises(RequestError, match=why) as caught:
        read_images(kind, body, GREY)
    assert time.thread_time() - before < 0.5
    return caught.value.status


def test_odd_jpeg_files() -> None:
    right = encoded("JPEG")
    for end in (10, 100, len(right) // 2, len(right) - 2):
        assert refused("image/jpeg", right[:end]) == 422
    scan = right[right.index(b"\xff\xda") : -2]
    assert refused("image/jpeg", right[:-2] + scan * 100) == 422
    assert refused("image/jpeg", right[:2] + b"\xff\xe1\0\2" * 10_000 + right[2:]) == 422
    assert refused("image/jpeg", right[:2] + b"\xff" * 50_000 + right[2:]) == 422
    assert read_images("image/jpeg", right[:2] + b"\xff" * 20 + right[2:], GREY).shape == (1, *GREY)


def progressive(scans: int) -> bytes:
    """A valid JPEG with this many scans: its last one is repeated."""
    sink = io.BytesIO()
    Image.new("L", (16, 16), 90).save(sink, "JPEG", progressive=True)
    body = sink.getvalue()
    last = body[body.rindex(SCAN) : -2]
    return body[:-2] + last * (scans - body.count(SCAN)) + body[-2:]


def test_scans_are_counted() -> None:
    """The decoder accepts both files: only the count of scans refuses one of them."""
    assert read_images("image/jpeg", progressive(containers.MAX_SCANS), GREY).shape == (1, *GREY)
    assert refused("image/jpeg", progressive(containers.MAX_SCANS + 1), "more than 64 scans") == 422
    many = progressive(3000)
    Image.open(io.BytesIO(many)).load()
    assert refused("image/jpeg", many, "scans") == 422


@pytest.mark.parametrize("pixels", [1, 2**18, 2**20, 2**40])
def test_large_images_may_have_fewer_scans(pixels: int) -> None:
    most = {1: 64, 2**18: 64, 2**20: 16, 2**40: 16}[pixels]
    assert containers.stripped(progressive(most), pixels)[0] == "JPEG"
    with pytest.raises(containers.ContainerError, match=f"more than {most} scans"):
        containers.stripped(progressive(most + 1), pixels)


@pytest.mark.parametrize("between", [b"\xff\xd0", b"\xff\xd0\xff\xd7", b"\xff\x01", b"\xff" * 5 + b"\xd3"])
def test_scans_are_counted_where_a_marker_hides_them(between: bytes) -> None:
    """A parser that takes the next two bytes for a length sees all scans but one inside a segment."""
    many = progressive(3000)
    start = many[:2] + between
    body = start + many[2:]
    (length,) = np.frombuffer(body[len(start) : len(start) + 2], ">u2")
    body = body[: len(start) + int(length)].ljust(len(start) + int(length), b"\0") + SCAN + b"\0\2"
    assert refused("image/jpeg", body, "scans") == 422
    for at in (0, len(many) // 2):  # and without so many scans
        few = progressive(12)
        assert refused("image/jpeg", few[:2] + between + few[2:], "damaged JPEG") == 422, at


@pytest.mark.parametrize("marker", [0x00, 0x01, 0x02, 0xBF, *range(0xD0, 0xDA)])
def test_markers_without_a_length(marker: int) -> None:
    """They are refused before the first scan, even if two bytes follow that look like a length."""
    right = encoded("JPEG")
    for filled in (b"\xff", b"\xff" * 3):
        for after in (b"", b"\0\2", b"\0\4ab"):
            assert refused("image/jpeg", right[:2] + filled + bytes([marker]) + after + right[2:]) == 422


def test_a_png_is_taken_at_its_checksums() -> None:
    """Valid pixels with a wrong checksum, and invalid pixels with a right one, are both refused."""
    right = encoded("PNG")
    assert np.allclose(read_images("image/png", right, GREY)[0, 0], PIXELS / np.float32(255))
    for kind in (b"IHDR", b"IDAT"):
        at = right.index(kind) - 4
        end = at + 12 + int.from_bytes(right[at : at + 4], "big")
        for byte in range(end - 4, end):
            body = right[:byte] + bytes([right[byte] ^ 1]) + right[byte + 1 :]
            assert refused("image/png", body, "a damaged PNG") == 422
    start = right[: right.index(b"IDAT") - 4]
    for data in (b"", b"x" * 100, zlib.compress(b"\5" * 272), zlib.compress(PIXELS.tobytes())[:-30]):
        assert refused("image/png", start + chunk(b"IDAT", data) + chunk(b"IEND", b""), "not an image") == 422


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_pixels_that_a_header_declares(kind: str) -> None:
    for size in ((16, 16), (300, 7), (1, 1)):
        for terms in ({}, {"progressive": True, "exif": b"Exif\0\0" + b"x" * 300}):
            sink = io.BytesIO()
            Image.new("RGB", size).save(sink, kind, **(terms if kind == "JPEG" else {}))
            assert containers.declared_pixels(sink.getvalue()) == size[0] * size[1]
    whole = sink.getvalue()
    for end in range(60):
        containers.declared_pixels(whole[:end])  # raises nothing
    assert containers.declared_pixels(whole[:12]) == 0
