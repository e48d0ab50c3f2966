"""Unusual bodies of every content type give the right image, or a 4xx with one line, and cost little."""

from __future__ import annotations

import gc
import io
import json
import random
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from worst_bodies import bombs, chunk, encoded, images_json, npy, png_with, whole

from study.serving import pictures
from study.serving import request_parsing as intake
from study.serving.request_parsing import MAX_IMAGES, RequestError, byte_bound, content_kind, read_images

GREY, COLOUR = (1, 16, 16), (3, 16, 16)
RNG = np.random.default_rng(0)
X = RNG.random((2, *GREY)).astype(np.float32)
ROWS = json.dumps(X.tolist())
NPY, JSON = "application/x-npy", "application/json"


def header(shape: str, descr: str = "'<f4'", fortran: str = "False", *, version: int = 1) -> bytes:
    """An .npy file with this header, valid or not, and the data of one float32 image."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + X[0].tobytes()


@pytest.fixture(autouse=True, scope="module")
def heap_left_alone() -> Iterator[None]:
    """What other tests of this process have left is not collected in the time of a request."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def saved(image: Image.Image, kind: str, **settings: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **settings)
    return sink.getvalue()


def png(header: bytes, *data: bytes) -> bytes:
    parts = [chunk(b"IHDR", header), *(chunk(b"IDAT", part) for part in data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def refused(kind: str, body: bytes, shape: tuple[int, int, int] = GREY) -> int:
    before = time.thread_time()
    with pytest.raises(RequestError) as caught:
        read_images(kind, body, shape)
    assert time.thread_time() - before < 0.5
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return caught.value.status


SHAPES = [
    "(-1, -1, 16, 16)", f"({2**62}, 0, 16, 16)", "(True, 1, 16, 16)", "(1, True, 16, 16)", "()", "(256,)",
    "(1, 1, 1, 16, 16)", "(0, 1, 16, 16)", "(1.0, 1, 16, 16)", "('1', 1, 16, 16)", "[1, 1, 16, 16]",
    f"({'9' * 400}+1j, 1, 16, 16)", f"(1, {'9' * 5000}, 16, 16)", "{1}", "(*(), 1)", "(1, 1, 16, 16", "...",
    "(1, -1, -16, 16)", f"(0x{'f' * 8000}, 1, 16, 16)", "(1j, 1, 16, 16)", "None", "1",
]  # fmt: skip
DTYPES = [
    "'|O'", "[('a', '<f4')]", "'<c8'", "'<f16'", "'|b1'", "'<i4'", "'|i1'", "'|S4'", "'<M8[s]'", "'<U1'",
    "('<f4', (2,))", "'<f4,<f4'", "4", "None", "()", "('<f8',)", "[]", "[()]", "{}", "''", "','",
    "9" * 400 + "+1j", "-" * 3000 + "1", "'<f4' if", "'\\x'", "b'<f4'", "...", "{1: 2, **{}}", "'<f4\\0'",
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_npy_shapes(shape: str) -> None:
    assert refused(NPY, header(shape)) == 422


@pytest.mark.parametrize("descr", DTYPES)
def test_npy_types(descr: str) -> None:
    assert refused(NPY, header("(1, 1, 16, 16)", descr)) == 422


@pytest.mark.parametrize(
    "body",
    [
        header("(1, 1, 16, 16)", version=3),
        header("(1, 1, 16, 16)", fortran="1"),
        header("(1, 1, 16, 16)")[:-1],
        header("(1, 1, 16, 16)") + b"\0",
        b"\x93NUMPY\2\0\xff\xff\xff\xff" + b"x" * 100,
        b"\x93NUMPY\1\0" + struct.pack("<H", 6000) + b"1+" * 3000,
        b"PK\3\4" + b"\0" * 100,
        npy(np.full(GREY, np.inf)),
        npy(np.full(GREY, 1e300)),
        npy(np.full(GREY, -1e-9)),
    ],
)
def test_other_arrays(body: bytes) -> None:
    assert refused(NPY, body) == 422


def test_right_arrays_in_other_layouts() -> None:
    for array in (np.asfortranarray(X), X.astype(">f8"), X[:, :, ::-1][:, :, ::-1], X.astype("<f4")):
        assert np.array_equal(read_images(NPY, npy(array), GREY), X)
    assert np.array_equal(read_images(NPY, header("(1, 1, 16, 16)", version=2), GREY), X[:1])
    assert np.allclose(read_images(NPY, npy(X.astype(np.float16)), GREY), X, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('{"images": [[[[1]]], [[[1, 1]]]]}', 422),
        ('{"images": [1, [1]]}', 422),
        ('{"images": {"a": 1}}', 422),
        ('{"images": null}', 422),
        ('{"images": [[[[]]]]}', 422),
        ('{"images": [[[[[0]]]]]}', 422),
        (f'{{"images": 1, "images": {ROWS}}}', 422),
        (ROWS, 422),
        ("true", 422),
        (f'{{"images": {ROWS}}}x', 400),
        ('{"images": [[[0\0]]]}', 400),
        ('{"images":' + "[" * 4000, 400),
        (f'{{"images": [[[1{"0" * 5000}]]]}}', 400),
        (" ", 400),
        (ROWS.replace("[", "[true, ", 5), 422),
    ],
)
def test_other_json(text: str, status: int) -> None:
    assert refused(JSON, text.encode()) == status


@pytest.mark.parametrize(
    "number", ["1e400", "1" + "0" * 400, "-1e400", "NaN", "Infinity", "true", '"0"', "{}"]
)
def test_json_numbers(number: str) -> None:
    """The value replaces one pixel of a valid image."""
    first = json.dumps(X[0].tolist()).partition(",")
    assert refused(JSON, f'{{"images": [[[{number},{first[2]}}}'.encode()) == 422


def test_json_encodings() -> None:
    right = f'{{"images": {ROWS}}}'
    for body in (right.encode(), right.encode("utf-8-sig"), f'{{"\\u0069mages": {ROWS}}}'.encode()):
        assert np.array_equal(read_images(JSON, body, GREY), X)
    assert refused(JSON, right.encode("utf-16")) == 400
    assert refused(JSON, b'\xc3("images"') == 400


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("image/PNG; charset=utf-8", 0), ("image/png;;", 0), (' application/JSON ;charset="UTF-8"', 0),
        ("application/json;charset", 0), ("application/json; charset=utf-16", 415), ("", 415), ("*/*", 415),
        ("image/png, image/jpeg", 415), ("image/png\0", 415), ("image/webp", 415),
        ("application/json\xff", 415), ("multipart/mixed; boundary=x", 415), (JSON * 500, 415),
    ],
)  # fmt: skip
def test_content_types(content_type: str, status: int) -> None:
    if not status:
        assert content_kind(content_type, b"hello") in ("image/png", JSON)
        return
    with pytest.raises(RequestError) as caught:
        content_kind(content_type, b"hello")
    assert caught.value.status == status


PIXELS = RNG.integers(0, 256, (16, 16, 3), np.uint8)
COLOURS = Image.fromarray(PIXELS)


def test_pictures_of_every_mode() -> None:
    """The images are those that Pillow decodes directly."""
    grey = COLOURS.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for image in (grey, COLOURS, COLOURS.convert("RGBA"), COLOURS.convert("LA"), COLOURS.quantize(16)):
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1) / np.float32(255)
        assert np.allclose(read_images("image/png", saved(image, "PNG"), COLOUR)[0], expected)
    assert np.allclose(read_images("image/png", saved(deep, "PNG"), GREY)[0, 0], np.asarray(grey) / 255)
    clear = COLOURS.quantize(16)
    assert read_images("image/png", saved(clear, "PNG", transparency=0), COLOUR).shape == (1, *COLOUR)
    for image in (COLOURS, COLOURS.convert("CMYK"), grey):
        body = saved(image, "JPEG", progressive=True)
        expected = np.asarray(Image.open(io.BytesIO(body)).convert("RGB")).transpose(2, 0, 1) / 255
        assert np.allclose(read_images("image/jpeg", body, COLOUR)[0], expected, atol=1e-6)
    turned = Image.Exif()
    turned[0x112] = 6  # a quarter to the right
    body = saved(COLOURS, "PNG", exif=turned)
    expected = np.rot90(PIXELS, -1).transpose(2, 0, 1) / 255
    assert np.allclose(read_images("image/png", body, COLOUR)[0], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "PPM", "GIF", "TIFF"])
def test_other_formats_by_another_name(kind: str) -> None:
    assert refused("image/png", saved(COLOURS, kind)) == 422


def test_odd_png_files() -> None:
    right = encoded("PNG")
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    assert refused("image/png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:])) == 422
    for end in (8, 20, 40, len(right) - 12, len(right) - 1):
        assert refused("image/png", right[:end]) == 422
    assert (
        refused("image/png", right[:45] + bytes([right[45] ^ 1]) + right[46:]) == 422
    )  # its checksum is wrong
    assert refused("image/png", png_with(chunk(b"tEXt", b"") * 5000)) == 422
    assert refused("image/png", png_with(chunk(b"IHDR", b"\0" * 13))) == 422
    for bits, colours in ((8, 7), (3, 0), (16, 3), (8, 5)):
        body = png(struct.pack(">IIBBBBB", 16, 16, bits, colours, 0, 0, 0), zlib.compress(b"\0" * 300))
        assert refused("image/png", body) == 422
    assert refused("image/png", png(struct.pack(">IIBBBBB", 0, 16, 8, 0, 0, 0, 0), b"")) == 422


def test_what_a_picture_carries_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed bombs in text and profiles are stripped before decoding; the image stays the same."""
    given: list[bytes] = []
    opens = pictures.open_image

    def watched(source: io.BytesIO, mode: Literal["L", "RGB"], **bounds: Any) -> Image.Image:
        given.append(source.getvalue())
        return opens(source, mode, **bounds)

    monkeypatch.setattr(pictures, "open_image", watched)
    plain = read_images("image/png", encoded("PNG"), GREY)
    assert np.array_equal(read_images("image/png", png_with(bombs()), GREY), plain)
    assert b"zTXt" not in given[-1]
    assert b"iCCP" not in given[-1]
    assert len(given[-1]) < 1000
    size = struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0)
    deep = png(size, zlib.compress(b"\0" * 30_000_000, 9))  # more pixels than its header says
    assert float(read_images("image/png", deep, GREY).max()) == 0


def test_byte_bounds_follow_from_the_shape() -> None:
    """The largest valid body of each content type is accepted; one byte over the bound is not."""
    most = RNG.random((MAX_IMAGES, *GREY))
    for kind, body in ((NPY, npy(most)), (JSON, images_json(MAX_IMAGES))):
        assert len(read_images(kind, body, GREY)) == MAX_IMAGES
        assert len(body) <= byte_bound(kind, GREY) < 2 * len(body)
        assert refused(kind, body + b" " * (byte_bound(kind, GREY) + 1 - len(body))) == 413
    assert byte_bound("image/png", GREY) < 100_000
    assert byte_bound(JSON, (3, 512, 512)) == intake.MAX_BYTES
    assert refused(JSON, b'{"images":[' + b"[]," * 100_000 + b"[]]}") == 413


def bodies() -> list[tuple[str, bytes]]:
    """Valid bodies and the worst ones, with their content types."""
    out = [
        ("image/png", encoded("PNG")), ("image/png", saved(COLOURS.quantize(16), "PNG", transparency=0)),
        ("image/jpeg", encoded("JPEG")), ("image/jpeg", saved(COLOURS, "JPEG", progressive=True)),
        (NPY, npy(X)), (NPY, npy((X * 255).astype(np.uint8))), (JSON, f'{{"images": {ROWS}}}'.encode()),
    ]  # fmt: skip
    for request in whole().values():
        head, _, body = request.partition(b"\r\n\r\n")
        for kind in (JSON, NPY, "image/png", "image/jpeg"):
            if body and kind.encode() in head and b"chunked" not in head:
                out.append((kind, body[:200_000]))
    return out


def test_mutants() -> None:
    """700 mutated bodies give an image of the shape or a RequestError, each within half a second."""
    rng, statuses = random.Random(5), set[int]()
    for kind, body in bodies():
        for _ in range(30):
            mutant = mutated(bytearray(body), rng)
            before = time.thread_time()
            try:
                x_NCHW = read_images(kind, mutant, GREY)
            except RequestError as error:
                statuses.add(error.status)
            else:
                statuses.add(200)
                assert x_NCHW.dtype == np.float32
                assert x_NCHW.shape[1:] == GREY
                assert 0 <= x_NCHW.min() <= x_NCHW.max() <= 1
            assert time.thread_time() - before < 0.5
    assert statuses == {200, 400, 413, 422}


def mutated(body: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        at, size = rng.randrange(len(body)), rng.randint(1, 40)
        match rng.randrange(6):
            case 0:
                body[at] = rng.randrange(256)
            case 1:
                del body[at : at + size]
            case 2:
                body[at:at] = body[at : at + size] * rng.randint(1, 50)
            case 3:
                body[at:at] = rng.choice(
                    [b"[", b"]", b",", b"-1", b"1e999", b"\xff\xd8", b"\0", b"true", b'"']
                )
            case 4:
                body[at : at + 4] = struct.pack(">I", rng.choice([0, 1, 2**31 - 1, 2**32 - 1]))
            case 5:
                del body[at:]
        if not body:
            return b"x"
    return bytes(body)
