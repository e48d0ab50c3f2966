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
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff")
"""Of files that are read as images, in capitals too: those that torchvision reads."""
READ_ERRORS = (OSError, ValueError, EOFError, SyntaxError, MemoryError, struct.error, zlib.error,
               zipfile.BadZipFile, Image.DecompressionBombError)  # fmt: skip
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")  # keeps a renamed .eps or .pdf away from its interpreter
FILE_FORMATS = (*FORMATS, "TIFF")
"""Formats of a user's own files: TIFF's decoders are for nobody else's bytes."""

Mode = Literal["L", "RGB"]


class DataError(ValueError):
    """Data or a data setting that the user has to mend. The message is one line."""


class TooLargeError(ValueError):
    """An image of more pixels than allowed; nothing of it was decoded."""


class MeaninglessError(ValueError):
    """An image of which it is not said what its numbers, or which of its pages, mean."""


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
            _check_meaning(image)
            upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip at 255
        upright = Image.fromarray((np.asarray(upright, np.int64).clip(0, 65535) // 257).astype(np.uint8))
    return upright.convert(mode)


def _check_meaning(image: Image.Image) -> None:
    """Refuse several pictures in one file (but in a JPEG: what cameras add to it are previews), and numbers
    without a known white."""
    word = {"TIFF": "pages", "PNG": "frames", "WEBP": "frames"}.get(image.format or "")
    if word and (n := getattr(image, "n_frames", 1)) > 1:
        raise MeaninglessError(f"{n} {word}" + ": save one by itself" * (word == "frames"))
    if image.mode == "F" or (
        image.mode == "I" and image.format == "TIFF"
    ):  # 32 bits: which of their values is white stands nowhere
        raise MeaninglessError("32 bits a pixel and channel: save 8 or 16")


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
            if not path.is_file():  # opening another thing (a pipe) could wait for ever
                raise MeaninglessError("no regular file" if path.exists() else "a link to nothing")
            images.append(to_square(open_image(path, mode, formats=FILE_FORMATS), side))
        except READ_ERRORS as error:
            fault = "unreadable"
            if isinstance(error, TooLargeError | Image.DecompressionBombError):
                fault = f"over {MAX_MEGAPIXELS} megapixels"
            elif isinstance(error, MeaninglessError):
                fault = str(error)
            bad.append(f"{shown(path, root)} ({fault})")
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


def shown(path: Path, root: Path) -> str:
    """A file's name below a folder, for a message: what cannot be printed in a line is escaped."""
    return printable(path.relative_to(root))


def printable(path: Path) -> str:
    text = path.as_posix()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
