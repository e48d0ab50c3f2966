"""Images in four content types are parsed; everything else gets an HTTP status."""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from study.serving import request_parsing as intake
from study.serving.request_parsing import FORMATS, MAX_BYTES, MAX_IMAGES, RequestError

GREY, COLOUR = (1, 6, 4), (3, 6, 4)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)


def read_images(content_type: str, body: bytes, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.from_numpy(intake.read_images(content_type, body, shape))


def picture(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind)
    return sink.getvalue()


def npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def refused(content_type: str, body: bytes, shape: tuple[int, int, int] = GREY) -> int:
    with pytest.raises(RequestError) as caught:
        read_images(content_type, body, shape)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return caught.value.status


def test_pictures() -> None:
    colour = read_images("image/png", picture(PIXELS), COLOUR)
    assert torch.equal(colour[0], torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255)
    grey = read_images("image/png", picture(PIXELS[..., 0]), GREY)
    assert torch.equal(grey[0, 0], torch.from_numpy(PIXELS[..., 0]).float() / 255)
    jpeg = read_images("Image/JPEG; q=1", picture(np.full((6, 4), 90, np.uint8), "JPEG"), GREY)
    assert (jpeg - 90 / 255).abs().max() < 0.02
    assert read_images("image/png", picture(PIXELS[..., 0]), COLOUR).shape == (1, *COLOUR)


def test_arrays_and_json() -> None:
    x = np.random.default_rng(1).random((3, *GREY)).astype(np.float32)
    expected = torch.from_numpy(x)
    for dtype in ("<f4", "<f8", ">f4"):
        assert torch.allclose(read_images("application/x-npy", npy(x.astype(dtype)), GREY), expected)
    assert torch.equal(read_images("application/x-npy", npy(x[0]), GREY), expected[:1])
    whole = (x * 255).astype(np.uint8)
    assert torch.allclose(read_images("application/x-npy", npy(whole), GREY), torch.from_numpy(whole) / 255)
    body = json.dumps({"images": x.tolist()}).encode()
    assert torch.equal(read_images("application/json", body, GREY), expected)
    body = json.dumps({"images": x[0].tolist()}).encode()
    assert torch.equal(read_images("application/json; charset=utf-8", body, GREY), expected[:1])


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header declares this many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def npy_header(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"hello", 415),
        ("", b"hello", 415),
        ("image/tiff", b"II*\0", 415),
        ("image/png", b"", 400),
        ("image/png", b"hello", 422),
        ("image/png", picture(PIXELS)[:40], 422),
        ("image/png", picture(np.zeros((4, 6), np.uint8)), 422),
        ("image/png", picture(np.zeros((2, 2), np.uint8)), 422),
        ("image/png", picture(np.zeros((64, 64), np.uint8)), 422),
        ("image/png", bomb(50_000, 50_000), 413),
        ("image/jpeg", bomb(2**31 - 1, 2**31 - 1), 413),
        ("image/png", b"%!PS-Adobe-3.0\n(x) show", 422),
        ("application/json", b"{", 400),
        ("application/json", b"\xff\xfe", 400),
        ("application/json", b"[" * 2_000, 400),
        ("application/json", b"[" * 200_000, 413),  # more brackets than the images can have
        ("application/json", b"[1]", 422),
        ("application/json", b'{"images": []}', 422),
        ("application/json", b'{"images": [[[0.5]]], "more": 1}', 422),
        ("application/json", b'{"images": "cat"}', 422),
        ("application/json", b'{"images": [[[[0, 0], [0]]]]}', 422),
        ("application/json", b'{"images": [[[[true]]]]}', 422),
        ("application/json", b'{"images": [[[[NaN]]]]}', 422),
        ("application/json", b'{"images": [[[[1e999]]]]}', 422),
        ("application/json", b'{"images": ' + b"[" * 50 + b"0" + b"]" * 50 + b"}", 422),
        ("application/json", json.dumps({"images": (-np.ones(GREY)).tolist()}).encode(), 422),
        ("application/x-npy", b"hello", 422),
        ("application/x-npy", npy(np.zeros((2, 1, 5, 4))), 422),
        ("application/x-npy", npy(np.zeros((2, *GREY)))[:-1], 422),
        ("application/x-npy", npy(np.full(GREY, np.nan)), 422),
        ("application/x-npy", npy(np.full(GREY, 1.5)), 422),
        ("application/x-npy", npy(np.zeros(GREY, np.int64)), 422),
        ("application/x-npy", npy(np.zeros((0, *GREY))), 422),
        ("application/x-npy", npy(np.array([{"a": 1}], dtype=object)), 422),
        ("application/x-npy", npy(np.zeros((MAX_IMAGES + 1, *GREY), np.uint8)), 413),
        (
            "application/x-npy",
            npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (9**9, 9), }"),
            422,
        ),
        (
            "application/x-npy",
            npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 1, 6, 4), }"),
            422,
        ),
        ("application/x-npy", npy_header("(" * 5000), 422),
        ("application/x-npy", npy_header("__import__('os').system('true')"), 422),
    ],
)
def test_what_is_no_image(content_type: str, body: bytes, status: int) -> None:
    assert refused(content_type, body) == status


@pytest.mark.parametrize("kind", FORMATS)
def test_large_bodies_are_not_parsed(kind: str) -> None:
    assert refused(kind, b"x" * (MAX_BYTES + 1)) == 413


def test_random_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(3)
    good: dict[str, Callable[[], bytes]] = {
        "image/png": lambda: picture(PIXELS),
        "image/jpeg": lambda: picture(PIXELS, "JPEG"),
        "application/x-npy": lambda: npy(PIXELS.transpose(2, 0, 1)),
        "application/json": lambda: json.dumps({"images": (PIXELS / 255).tolist()}).encode(),
    }
    for kind, make in good.items():
        data = np.frombuffer(make(), np.uint8)
        for _ in range(150):
            body = data.copy()
            body[rng.integers(0, len(body), rng.integers(1, 6))] = rng.integers(0, 256)
            try:
                x = read_images(kind, body.tobytes(), COLOUR)
            except RequestError:
                continue
            assert x.shape[1:] == COLOUR
            assert float(x.min()) >= 0
            assert float(x.max()) <= 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (255, "the largest is 255: divide pixels from 0 to 255 by 255"),
        (1.5, "the largest is 1.5"),
        (1000, "the largest is 1000"),
        (-0.25, "the least is -0.25"),
        (math.nan, "one is nan"),
        (math.inf, "one is inf"),
        (10**400, "hundreds of digits"),
    ],
)
def test_pixels_out_of_range_are_named(value: float, said: str) -> None:
    pixels = np.zeros(GREY).tolist()
    pixels[0][0][0] = value
    with pytest.raises(RequestError, match=r"finite and in \[0, 1\]") as caught:
        read_images("application/json", json.dumps({"images": pixels}).encode(), GREY)
    assert said in str(caught.value)
    assert ("divide" in str(caught.value)) == (1 < value <= 255)
