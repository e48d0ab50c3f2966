"""Reads image files that may come from anybody: sizes are checked before decoding, errors are one line.

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
"""Images with more pixels are refused, since decoding them could exhaust the memory."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff")
"""Suffixes of the files that are read as images, in upper or lower case; the same that torchvision reads."""
READ_ERRORS = (OSError, ValueError, EOFError, SyntaxError, MemoryError, struct.error, zlib.error,
               zipfile.BadZipFile, Image.DecompressionBombError)  # fmt: skip
"""What NumPy, Pillow and the standard library raise for damaged or unsuitable files."""
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
"""Decoders of Pillow that may see any file. A .eps or .pdf with another suffix never reaches its
interpreter."""
FILE_FORMATS = (*FORMATS, "TIFF")
"""Decoders for the user's own files. TIFF's have a larger attack surface, so other bytes never reach them."""

Mode = Literal["L", "RGB"]


class DataError(ValueError):
    """Data, or a setting about data, that the user has to correct. The message is one line."""


class TooLargeError(ValueError):
    """An image has more pixels than allowed; none of it was decoded."""


class MeaninglessError(ValueError):
    """A file does not say which picture is meant (several pages) or which pixel value is white."""


def open_image(
    source: Path | BytesIO,
    mode: Mode,
    *,
    max_pixels: int = MAX_MEGAPIXELS * 10**6,
    formats: tuple[str, ...] = FORMATS,
) -> Image.Image:
    """Open an image, turn it upright by its EXIF orientation and convert it.

    Args:
        source: file or bytes. mode: ``L`` (grey) or ``RGB``, 8 bits a channel.
        max_pixels: largest width times height; checked before anything is decoded.
        formats: the decoders of Pillow that may be used.

    Raises:
        TooLargeError: more than ``max_pixels``.
        MeaninglessError: several pictures in one file, or 32 bits a channel.
        one of READ_ERRORS: not an image, or a damaged one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is the tighter bound
        with Image.open(source, formats=formats) as image:
            if image.width * image.height > max_pixels:
                raise TooLargeError(f"{image.width}x{image.height} pixels, at most {max_pixels} are read")
            _check_meaning(image)
            upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip at 255
        upright = Image.fromarray((np.asarray(upright, np.int64).clip(0, 65535) // 257).astype(np.uint8))
    return upright.convert(mode)


def _check_meaning(image: Image.Image) -> None:
    """Refuse several pictures in one file, and 32-bit pixels, whose value for white is not defined.

    A JPEG may hold several pictures: those that cameras add are previews of the first.
    """
    word = {"TIFF": "pages", "PNG": "frames", "WEBP": "frames"}.get(image.format or "")
    if word and (n := getattr(image, "n_frames", 1)) > 1:
        raise MeaninglessError(f"{n} {word}" + ": save one by itself" * (word == "frames"))
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise MeaninglessError("32 bits a pixel and channel: save 8 or 16")


def to_square(image: Image.Image, side: int) -> np.ndarray:
    """The central square of an image, resized bilinearly to uint8 [side, side, C].

    Pillow widens the filter when it shrinks an image, which is the antialiasing.
    """
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    small = square.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(small).reshape(side, side, -1)


def read_squares(name: str, root: Path, paths: Iterable[Path], mode: Mode, side: int) -> np.ndarray:
    """Read image files as squares, uint8 [N, side, side, C].

    Args:
        name: name of the data set, for messages. root: folder of the files, for messages.
        mode: ``L`` (C = 1) or ``RGB`` (C = 3).

    Raises:
        DataError: some files cannot be read; one line that counts and names them.
    """
    images, bad = [], []
    for path in paths:
        try:
            if not path.is_file():  # opening a pipe could block for ever
                raise MeaninglessError("no regular file" if path.exists() else "a broken link")
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
        raise DataError(f"{name}: repair or remove {share} in {root}: {some(bad)}")
    return np.stack(images)


def grey_if_all_are(images_NHWC: np.ndarray) -> np.ndarray:
    """The images with one channel (N, H, W, 1) if all channels are equal in every image, else unchanged."""
    grey_NHWC = images_NHWC[..., :1]
    return np.ascontiguousarray(grey_NHWC) if (images_NHWC == grey_NHWC).all() else images_NHWC


def some(items: list[str]) -> str:
    """The first five items in one line, for an error message."""
    return ", ".join(items[:5]) + ", ..." * (len(items) > 5) if items else "none"


def shown(path: Path, root: Path) -> str:
    """A file's path relative to a folder, for a one-line message (see :func:`printable`)."""
    return printable(path.relative_to(root))


def printable(path: Path) -> str:
    """A path as text in which line breaks and other unprintable characters are escaped."""
    text = path.as_posix()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
