"""Decodes untrusted PNG and JPEG files, and resizes them where the service states how.

Sizes are checked by the file's header before anything is decoded. Shape suffixes: N images, CHW image.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from mipoison.data.images import TooLargeError, open_image
from study.serving.bounds import RESIZED_PIXELS, RequestError, Shape
from study.serving.containers import ContainerError, stripped

RESIZES = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
"""Interpolations by which pictures may be resized: Pillow's, which antialias (except nearest)."""

Size = tuple[int, int]
"""Width and height."""


def picture(body: bytes, image_shape: Shape, resize: str | None) -> tuple[np.ndarray, Size | None]:
    """The image (1, C, H, W), float32 in [0, 1], and the size that the file had if it was resized.

    Args:
        resize: a key of RESIZES, or None to refuse pictures of another size.

    Raises:
        RequestError: 413 for too many pixels, 422 for another size, or what is no such file.
    """
    channels, height, width = image_shape
    most = max(height * width, RESIZED_PIXELS) if resize else height * width
    try:
        kind, body = stripped(body, most)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damaged files
            given = _size(body, kind)
            if given[0] * given[1] > most and given[0] * given[1] <= RESIZED_PIXELS:
                raise _another_size(given, (width, height))
            image = open_image(
                io.BytesIO(body), "L" if channels == 1 else "RGB", max_pixels=most, formats=(kind,)
            )
    except RequestError:
        raise
    except ContainerError as error:
        raise RequestError(422, str(error)) from error
    except (TooLargeError, Image.DecompressionBombError) as error:
        raise RequestError(413, f"image of more than {max(most, RESIZED_PIXELS)} pixels: {error}") from error
    except Exception as error:  # on damaged files a decoder may raise anything
        raise RequestError(422, f"not an image, or damaged ({type(error).__name__})") from error
    resized = None
    if image.size != (width, height):
        if resize is None:
            raise _another_size(image.size, (width, height))
        resized = image.size
        image = fitted(image, width, height, resize)
    pixels_HWC = np.asarray(image).reshape(height, width, channels)
    x_NCHW = np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    return x_NCHW, resized


def declared_size(body: bytes, image_shape: Shape, resize: str | None) -> Size:
    """Width and height in a file's header; nothing is decoded. (0, 0) where :func:`picture` will refuse it.

    Args:
        image_shape, resize: as in :func:`picture`.
    """
    height, width = image_shape[1:]
    try:
        kind, body = stripped(body, max(height * width, RESIZED_PIXELS) if resize else height * width)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damaged files
            return _size(body, kind)
    except Exception:  # on damaged files a decoder may raise anything
        return 0, 0


def fitted(image: Image.Image, width: int, height: int, resize: str) -> Image.Image:
    """The image's central part of the wanted aspect ratio, resized: of a square, what the study's data are.

    Equal to :func:`mipoison.data.images.to_square` for bilinear squares.
    """
    w, h = image.size
    if w * height > h * width:
        w = max(1, round(h * width / height))
    else:
        h = max(1, round(w * height / width))
    left, top = (image.width - w) // 2, (image.height - h) // 2
    return image.crop((left, top, left + w, top + h)).resize((width, height), RESIZES[resize])


def _size(body: bytes, kind: str) -> Size:
    """The size in the file's header; nothing is decoded."""
    with Image.open(io.BytesIO(body), formats=(kind,)) as opened:
        return opened.size


def _another_size(given: Size, wanted: Size) -> RequestError:
    error = RequestError(
        422,
        f"image of {given[0]}x{given[1]} pixels, wanted {wanted[0]}x{wanted[1]}: resize it as the images "
        "were that the unit was fitted on; or the service states how it resizes (serve --resize bilinear)",
    )
    error.more = {"given": list(given), "wanted": list(wanted)}
    return error
