"""What clients send, read with care: images out of a request's bytes, or an HTTP status that says why not.

Shape suffixes: N images, CHW image.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mipoison.images import READ_ERRORS, TooLargeError, open_image

MAX_BYTES = 8 * 2**20
"""Largest body."""
MAX_IMAGES = 256
"""Most images of one request."""
FORMATS = {
    "image/png": "one image",
    "image/jpeg": "one image",
    "application/x-npy": "an array (N, C, H, W) or (C, H, W), uint8 or float in [0, 1]",
    "application/json": '{"images": nested lists (N, C, H, W) or (C, H, W) of numbers in [0, 1]}',
}
_NPY_KINDS = ("u1", "f2", "f4", "f8")


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status: 400, 404, 405, 413, 415 or 422.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_images(content_type: str, body: bytes, image_shape: tuple[int, int, int]) -> Tensor:
    """Images (N, C, H, W), float32 in [0, 1], out of a request's body.

    Args:
        content_type: the header's value; parameters after a semicolon do not matter.
        image_shape: (C, H, W) that is served; nothing is resized.

    Raises:
        RequestError: 413 too large, 415 another type, 422 no such images, 400 malformed.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if len(body) > MAX_BYTES:
        raise too_many_bytes()
    if kind not in FORMATS:
        raise RequestError(415, f"content type {kind[:80]!r}; send one of: {', '.join(FORMATS)}")
    if not body:
        raise RequestError(400, f"empty body; {kind} is {FORMATS[kind]}")
    if kind.startswith("image/"):
        return _picture(body, image_shape)
    array = _npy(body) if kind == "application/x-npy" else _json(body)
    return _batch(array, image_shape)


def too_many_bytes() -> RequestError:
    """The answer to a body over the bound."""
    return RequestError(413, f"body over {MAX_BYTES} bytes")


def _picture(body: bytes, image_shape: tuple[int, int, int]) -> Tensor:
    channels, height, width = image_shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # open_image has a tighter bound
            image = open_image(io.BytesIO(body), "L" if channels == 1 else "RGB", max_pixels=height * width)
    except (TooLargeError, Image.DecompressionBombError) as error:
        raise RequestError(413, f"image of more than {width}x{height} pixels: {error}") from error
    except READ_ERRORS as error:
        raise RequestError(422, f"not an image, or damaged ({type(error).__name__})") from error
    if image.size != (width, height):
        raise RequestError(422, f"image of {image.width}x{image.height} pixels, expected {width}x{height}")
    pixels_HWC = np.asarray(image).reshape(height, width, channels)
    return torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1)[None].float().div(255).contiguous()


def _npy(body: bytes) -> np.ndarray:
    """An .npy file's array. The header is judged before anything is allocated; objects are never loaded."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read[version](stream)
    except (KeyError, RecursionError, TokenError, *READ_ERRORS) as error:
        raise RequestError(422, f"not an .npy file of version 1 or 2 ({type(error).__name__})") from error
    data = body[stream.tell() :]
    if dtype.str[1:] not in _NPY_KINDS:
        raise RequestError(422, f"array of {dtype}, expected uint8 or float")
    if fortran or len(shape) not in (3, 4) or math.prod(shape) * dtype.itemsize != len(data):
        raise RequestError(422, f"array of shape {shape!s:.80} with {len(data)} bytes, expected (N, C, H, W)")
    array = np.frombuffer(data, dtype).reshape(shape)
    return array.astype(np.float32) / 255 if dtype.kind == "u" else array.astype(np.float32)


def _json(body: bytes) -> np.ndarray:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise RequestError(400, f"malformed JSON ({type(error).__name__})") from error
    if not isinstance(found, dict) or set(found) != {"images"}:
        raise RequestError(422, f"expected {FORMATS['application/json']}")
    return np.array(_numbers(found["images"], 4), dtype=np.float32)


def _numbers(value: Any, depth: int) -> Any:
    """Nested lists of at most ``depth`` levels with numbers alone in them, rows of equal length."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1:
        return value
    if isinstance(value, list) and depth:
        rows = [_numbers(row, depth - 1) for row in value]
        if len({len(row) if isinstance(row, list) else -1 for row in rows}) <= 1:
            return rows
    raise RequestError(422, f"images must be {FORMATS['application/json']}, all rows of equal length")


def _batch(array: np.ndarray, image_shape: tuple[int, int, int]) -> Tensor:
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[1:] != image_shape or not len(array):
        expected = ", ".join(map(str, image_shape))
        raise RequestError(
            422, f"images of shape {list(array.shape)}, expected [N, {expected}], N at least 1"
        )
    if len(array) > MAX_IMAGES:
        raise RequestError(413, f"{len(array)} images, at most {MAX_IMAGES} a request")
    if not bool(((array >= 0) & (array <= 1)).all()):  # false for NaN as well
        raise RequestError(422, "pixels must be finite and in [0, 1]")
    return torch.from_numpy(np.ascontiguousarray(array))
