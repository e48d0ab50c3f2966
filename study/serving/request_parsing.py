"""Parses untrusted request bodies into images, or raises an error with an HTTP status.

All bounds follow from the shape of the classifier's images, and are checked before anything is allocated: the
length by content type, JSON by counting brackets and commas, pictures by their header. This module does not
import torch: worker processes (``study.serving.readers``) import it. Shape suffixes: N images, CHW image.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from mipoison.data.images import TooLargeError, open_image
from study.serving.containers import ContainerError, stripped

MAX_BYTES = 8 * 2**20
"""Largest body of all, whatever the images' shape."""
MAX_IMAGES = 256
"""Most images of one request."""
FORMATS = {
    "image/png": "one image",
    "image/jpeg": "one image",
    "application/x-npy": "an array (N, C, H, W) or (C, H, W), uint8 or float in [0, 1]",
    "application/json": '{"images": nested lists (N, C, H, W) or (C, H, W) of numbers in [0, 1]}',
}
_NPY_KINDS = ("u1", "f2", "f4", "f8")
_NPY_HEADER = 10_000
"""Largest header of an .npy file that numpy reads."""
_NUMBER = 32
"""Most bytes of a number in JSON, with comma and white space: 17 digits, sign, exponent."""
_PICTURE_EXTRAS = 64 * 2**10
"""Bytes that a picture file may have besides its pixels: a colour profile, metadata of a camera."""
_UTF8 = ("", "utf-8", "utf8", "us-ascii", "ascii")

Shape = tuple[int, int, int]


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status: 400, 404, 405, 408, 411, 413, 415, 422, 500 or 503.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)  # both arguments, so that pickling between processes works
        self.status, self.message = status, message

    def __str__(self) -> str:
        return self.message


def content_kind(content_type: str) -> str:
    """The media type in a Content-Type header.

    Raises:
        RequestError: 415 if it is not one of FORMATS, or JSON in a character set other than UTF-8.
    """
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if kind not in FORMATS:
        raise RequestError(415, f"content type {kind[:80]!r}; send one of: {', '.join(FORMATS)}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if kind == "application/json" and name.strip() == "charset":
            charset = value.strip().strip('"')
            if charset not in _UTF8:
                raise RequestError(415, f"charset {charset[:40]!r}: JSON is UTF-8")
    return kind


def byte_bound(kind: str, image_shape: Shape) -> int:
    """Largest body of this media type that can hold as many images as a request may have."""
    numbers = MAX_IMAGES * math.prod(image_shape)
    if kind == "application/json":
        most = 1024 + _NUMBER * numbers
    elif kind == "application/x-npy":
        most = _NPY_HEADER + 8 * numbers
    else:  # four channels of 16 bits, uncompressed
        most = _PICTURE_EXTRAS + 16 * image_shape[1] * image_shape[2]
    return min(most, MAX_BYTES)


def too_many_bytes(kind: str, image_shape: Shape) -> RequestError:
    """The error for a body over the bound."""
    shape = "x".join(map(str, image_shape))
    return RequestError(
        413, f"body over {byte_bound(kind, image_shape)} bytes, the most for {kind} of {shape}"
    )


def read_images(content_type: str, body: bytes, image_shape: Shape) -> np.ndarray:
    """Parse a request's body into images (N, C, H, W), float32 in [0, 1].

    Args:
        content_type: the header's value.
        image_shape: (C, H, W) of the classifier; images are not resized.

    Raises:
        RequestError: 413 too large, 415 another type, 422 not valid images, 400 malformed.
    """
    kind = content_kind(content_type)
    if len(body) > byte_bound(kind, image_shape):
        raise too_many_bytes(kind, image_shape)
    if not body:
        raise RequestError(400, f"empty body; {kind} is {FORMATS[kind]}")
    if kind.startswith("image/"):
        return _picture(body, image_shape)
    array = _npy(body, image_shape) if kind == "application/x-npy" else _json(body, image_shape)
    if len(array) > MAX_IMAGES:
        raise RequestError(413, f"{len(array)} images, at most {MAX_IMAGES} a request")
    if not bool(((array >= 0) & (array <= 1)).all()):  # false for NaN as well
        raise RequestError(422, "pixels must be finite and in [0, 1]")
    return np.ascontiguousarray(array)


def _picture(body: bytes, image_shape: Shape) -> np.ndarray:
    channels, height, width = image_shape
    mode = "L" if channels == 1 else "RGB"
    try:
        kind, body = stripped(body, height * width)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damaged files
            image = open_image(io.BytesIO(body), mode, max_pixels=height * width, formats=(kind,))  # type: ignore[arg-type]
    except ContainerError as error:
        raise RequestError(422, str(error)) from error
    except (TooLargeError, Image.DecompressionBombError) as error:
        raise RequestError(413, f"image of more than {width}x{height} pixels: {error}") from error
    except Exception as error:  # on damaged files a decoder may raise anything
        raise RequestError(422, f"not an image, or damaged ({type(error).__name__})") from error
    if image.size != (width, height):
        raise RequestError(422, f"image of {image.width}x{image.height} pixels, expected {width}x{height}")
    pixels_HWC = np.asarray(image).reshape(height, width, channels)
    return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def _npy(body: bytes, image_shape: Shape) -> np.ndarray:
    """The array of an .npy file. The header is checked before anything is allocated; nothing is unpickled."""
    stream = io.BytesIO(body)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers of Python 2 and invalid escapes
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = read[version](stream)
    except Exception as error:  # the header is a Python literal: its parser may raise anything
        raise RequestError(422, f"not an .npy file of version 1 or 2 ({type(error).__name__})") from error
    if dtype.str[1:] not in _NPY_KINDS:
        raise RequestError(422, f"array of {dtype!s:.80}, expected uint8 or float")
    _check_shape(shape, image_shape)
    data = body[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(data):
        raise RequestError(422, f"array of shape [{_said(shape)}] with {len(data)} bytes of {dtype}")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    with np.errstate(all="ignore"):  # the caller refuses values that are not finite
        array_NCHW = array.reshape(-1, *image_shape).astype(np.float32)
    return array_NCHW / 255 if dtype.kind == "u" else array_NCHW


def _json(body: bytes, image_shape: Shape) -> np.ndarray:
    """The array of ``{"images": lists}``. Brackets and commas are counted before anything is parsed."""
    expected = FORMATS["application/json"]
    channels, height, width = image_shape
    rows = MAX_IMAGES * channels * height
    brackets = 1 + MAX_IMAGES * (1 + channels + channels * height)
    if body.count(b"[") > brackets or body.count(b",") > rows * width:
        raise RequestError(413, f"more lists or numbers than {MAX_IMAGES} images have; expected {expected}")
    if body.count(b"{") > 1 or body.count(b'"') > 2:
        raise RequestError(422, f"expected {expected}, and no other key or text")
    try:
        found = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise RequestError(400, f"malformed JSON ({type(error).__name__})") from error
    if not isinstance(found, dict) or set(found) != {"images"}:
        raise RequestError(422, f"expected {expected}")
    shape, numbers = _flat(found["images"])
    _check_shape(shape, image_shape)
    try:
        with np.errstate(all="ignore"):
            array = np.array(numbers, np.float64).astype(np.float32)
    except OverflowError as error:  # an integer too large for a float
        raise RequestError(422, "pixels must be finite and in [0, 1]") from error
    return array.reshape(-1, *image_shape)


def _flat(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and elements of nested lists of numbers with rows of equal length, at most four levels deep."""
    level, shape = [value], tuple[int, ...]()
    for _ in range(5):
        kinds = set(map(type, level))
        if kinds and kinds <= {int, float}:
            return shape, level
        if kinds != {list} or len(lengths := set(map(len, level))) != 1:
            break
        shape += (lengths.pop(),)
        level = list(chain.from_iterable(level))
    raise RequestError(422, f"images must be {FORMATS['application/json']}, all rows of equal length")


def _check_shape(shape: tuple[int, ...], image_shape: Shape) -> None:
    """Raise RequestError unless the shape is (C, H, W), or (N, C, H, W) with N at least 1."""
    n, *rest = shape if len(shape) == 4 else (1, *shape)
    whole = all(type(length) is int for length in shape)  # True would count as 1
    if not whole or tuple(rest) != image_shape or not 1 <= n < 2**63:
        expected = ", ".join(map(str, image_shape))
        raise RequestError(422, f"images of shape [{_said(shape)}], expected [N, {expected}], N at least 1")


def _said(shape: tuple[int, ...]) -> str:
    """A shape as text for a message; Python cannot print integers of thousands of digits."""
    return ", ".join(str(length) if abs(length) < 2**63 else "..." for length in shape[:8])
