"""Image files of other people, read with care: bounds before anything is decoded, every fault one line.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

MAX_MEGAPIXELS = 64
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm")
READ_ERRORS = (OSError, ValueError, EOFError, SyntaxError, MemoryError, struct.error, zlib.error,
               zipfile.BadZipFile, Image.DecompressionBombError)  # fmt: skip
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")  # keeps a renamed .eps or .pdf away from its interpreter

Mode = Literal["L", "RGB"]


class DataError(ValueError):
    """Data or a data setting that the user has to mend. The message is one line."""


class TooLargeError(ValueError):
    """An image of more pixels than allowed; nothing of it was decoded."""


def open_image(
    source: Path | BytesIO,
    mode: Mode,
    *,
    max_pixels: int = MAX_MEGAPIXELS * 10**6,
    formats: tuple[str, ...] = FORMATS,
) -> Image.Image:
    """An image upright and in one mode; its size is judged before anything is decoded.

    Args:
        formats: the only decoders of Pillow that are asked.

    Raises:
        TooLargeError: more than ``max_pixels``.
        one of READ_ERRORS: no image, or a damaged one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is the tighter one
        with Image.open(source, formats=formats) as image:
            if image.width * image.height > max_pixels:
                raise TooLargeError(f"{image.width}x{image.height} pixels, at most {max_pixels} are read")
            upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip at 255
        upright = Image.fromarray((np.asarray(upright, np.int64).clip(0, 65535) // 257).astype(np.uint8))
    return upright.convert(mode)


def to_square(image: Image.Image, side: int) -> np.ndarray:
    """The central square as uint8 [side, side, C], bilinear; Pillow widens its filter when it shrinks: that
    is the antialiasing."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    small = square.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(small).reshape(side, side, -1)


def read_squares(name: str, root: Path, paths: Iterable[Path], mode: Mode, side: int) -> np.ndarray:
    """Image files as uint8 [N, side, side, C].

    Raises:
        DataError: some cannot be read; one line that counts and names them.
    """
    images, bad = [], []
    for path in paths:
        try:
            images.append(to_square(open_image(path, mode), side))
        except READ_ERRORS as error:
            large = isinstance(error, TooLargeError | Image.DecompressionBombError)
            fault = f"over {MAX_MEGAPIXELS} megapixels" if large else "unreadable"
            bad.append(f"{path.relative_to(root)} ({fault})")
    if bad:
        share = f"{len(bad)} of {len(images) + len(bad)} image files"
        raise DataError(f"{name}: mend or remove {share} in {root}: {some(bad)}")
    return np.stack(images)


def grey_if_all_are(images_NHWC: np.ndarray) -> np.ndarray:
    """One channel where the three agree in every image."""
    grey_NHWC = images_NHWC[..., :1]
    return np.ascontiguousarray(grey_NHWC) if (images_NHWC == grey_NHWC).all() else images_NHWC


def some(items: list[str]) -> str:
    """The first five, for an error message."""
    return ", ".join(items[:5]) + ", ..." * (len(items) > 5) if items else "none"
