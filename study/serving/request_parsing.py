"""Parses untrusted request bodies into images, or raises an error with an HTTP status.

All bounds follow from the shape of the classifier's images, and are checked before anything is allocated:
the length by kind of content, JSON by counting brackets and commas, pictures by their header. This module
does not import torch: worker processes (``study.serving.readers``) import it. Shape suffixes: N images, CHW
image.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from study.serving.bounds import (
    FORM,
    FORMATS,
    MAX_BYTES,
    MAX_IMAGES,
    RESIZED_PIXELS,
    RequestError,
    Shape,
    byte_bound,
    content_kind,
    too_many_bytes,
)
from study.serving.containers import JPEG, PNG
from study.serving.forms import form_files
from study.serving.pictures import Size, declared_size, picture

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_IMAGES",
    "Images",
    "RequestError",
    "Shape",
    "byte_bound",
    "content_kind",
    "read_images",
    "read_request",
]

FORM_PIXELS = 4 * RESIZED_PIXELS
"""Most pixels of all pictures of a form, as they came and as they are after resizing; more only if that is
what a single one has."""
PIXELS = "pixels must be finite and in [0, 1]"
_NPY_KINDS = ("u1", "f2", "f4", "f8")


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a request.

    Attributes:
        x_NCHW: float32 in [0, 1].
        sizes: width and height that a picture had before it was resized; None for each that was not.
    """

    x_NCHW: np.ndarray
    sizes: list[Size | None]


def read_images(content_type: str, body: bytes, image_shape: Shape) -> np.ndarray:
    """The images (N, C, H, W) of a request that may not be resized; see :func:`read_request`."""
    return read_request(content_type, body, image_shape).x_NCHW


def read_request(content_type: str, body: bytes, image_shape: Shape, resize: str | None = None) -> Images:
    """Parse a request's body into images.

    Args:
        content_type: the header's value; the first bytes decide, see ``study.serving.bounds``.
        image_shape: (C, H, W) of the classifier.
        resize: how pictures of another size are resized (``study.serving.pictures.RESIZES``); None: they are
            refused. Arrays and JSON are never resized.

    Raises:
        RequestError: 413 too large, 415 another type, 422 not valid images, 400 malformed.
    """
    if not body:
        raise RequestError(400, f"empty body; send one of: {', '.join(FORMATS)}")
    kind = content_kind(content_type, body)
    if len(body) > byte_bound(kind, image_shape, resized=resize is not None):
        raise too_many_bytes(kind, image_shape, resized=resize is not None)
    if kind != FORM:
        return _one(kind, body, image_shape, resize)
    parts = form_files(content_type, body)
    _check_pixels(parts, image_shape, resize)
    found: list[Images] = []
    n = 0
    for i, part in enumerate(parts):
        try:
            found.append(_one(_part_kind(part), part, image_shape, resize))
        except RequestError as error:
            error.message = f"part {i + 1} of the form: {error.message}"
            raise
        n += len(found[-1].sizes)
        if n > MAX_IMAGES:
            raise RequestError(413, f"{n} images, at most {MAX_IMAGES} a request")
    sizes = [size for images in found for size in images.sizes]
    return Images(np.concatenate([images.x_NCHW for images in found]), sizes)


def _check_pixels(parts: list[bytes], image_shape: Shape, resize: str | None) -> None:
    """Raise RequestError if a form's pictures have too many pixels by their headers, before any is decoded.

    A resized picture counts twice: the pixels that it has, and those of the image that it becomes.
    """
    wanted = image_shape[2], image_shape[1]
    released = math.prod(wanted)
    total = 0
    for part in parts:
        if part.startswith((PNG, JPEG)):
            size = declared_size(part, image_shape, resize)
            total += released if size == wanted else released + math.prod(size)
    if total > max(FORM_PIXELS, RESIZED_PIXELS + released, 2 * released):
        raise RequestError(413, f"{total} pixels in the pictures of one form, at most {FORM_PIXELS}")


def _part_kind(part: bytes) -> str:
    try:
        return content_kind("", part)
    except RequestError:
        others = ", ".join(kind for kind in FORMATS if kind != FORM)
        raise RequestError(422, f"its first bytes tell none of: {others}") from None


def _one(kind: str, body: bytes, image_shape: Shape, resize: str | None) -> Images:
    """Images of one kind of content, not a form."""
    if len(body) > byte_bound(kind, image_shape, resized=resize is not None):
        raise too_many_bytes(kind, image_shape, resized=resize is not None)
    if kind.startswith("image/"):
        x_NCHW, resized = picture(body, image_shape, resize)
        return Images(x_NCHW, [resized])
    array = _npy(body, image_shape) if kind == "application/x-npy" else _json(body, image_shape)
    if len(array) > MAX_IMAGES:
        raise RequestError(413, f"{len(array)} images, at most {MAX_IMAGES} a request")
    if not bool(((array >= 0) & (array <= 1)).all()):  # false for NaN as well
        raise RequestError(422, f"{PIXELS}; {_fault(array)}")
    return Images(np.ascontiguousarray(array), [None] * len(array))


def _fault(array: np.ndarray) -> str:
    """What is wrong with pixels, and what to do if they are from 0 to 255."""
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"one is {low if not math.isfinite(low) else high}"
    if low < 0:
        return f"the least is {low:.6g}"
    scaled = ": divide pixels from 0 to 255 by 255" if high <= 255 else ""
    return f"the largest is {high:.6g}{scaled}"


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
        raise RequestError(422, f"{PIXELS}; one is a number of hundreds of digits") from error
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
