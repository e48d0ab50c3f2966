"""Pictures of another size: resized as stated, or refused with both sizes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mipoison.data.images import to_square
from study.serving.bounds import RESIZED_PIXELS, RequestError
from study.serving.pictures import RESIZES, fitted, picture
from study.serving.request_parsing import read_request

SHAPE = (1, 16, 16)
RNG = np.random.default_rng(0)


def png(width: int, height: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (height, width), np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def refused(body: bytes, resize: str | None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        picture(body, SHAPE, resize)
    return caught.value


@pytest.mark.parametrize("size", [(64, 64), (20, 9), (8, 8), (9, 30), (16, 17)])
def test_resizing_is_the_study_s_own(size: tuple[int, int]) -> None:
    body = png(*size)
    x, given = picture(body, SHAPE, "bilinear")
    square = to_square(Image.open(io.BytesIO(body)).convert("L"), 16)
    assert given == size
    assert np.array_equal(x[0, 0], square[..., 0].astype(np.float32) / 255)


@pytest.mark.parametrize("resize", RESIZES)
def test_every_interpolation(resize: str) -> None:
    image = Image.fromarray(np.full((40, 50), 77, np.uint8))
    assert set(np.unique(np.asarray(fitted(image, 16, 16, resize)))) == {77}
    assert fitted(image, 7, 3, resize).size == (7, 3)


def test_wide_images_lose_their_sides_alone() -> None:
    pixels = np.zeros((10, 40), np.uint8)
    pixels[:, 10:30] = 200  # the central part of ratio 2
    found = np.asarray(fitted(Image.fromarray(pixels), 20, 10, "bilinear"))
    assert np.array_equal(found, np.full((10, 20), 200, np.uint8))


def test_the_right_size_is_left_alone() -> None:
    body = png(16, 16)
    plain, resized = picture(body, SHAPE, None), picture(body, SHAPE, "lanczos")
    assert plain[1] is resized[1] is None
    assert np.array_equal(plain[0], resized[0])


@pytest.mark.parametrize("size", [(64, 64), (8, 8), (16, 15), (2, 100)])
def test_a_refusal_names_both_sizes_and_what_to_do(size: tuple[int, int]) -> None:
    error = refused(png(*size), None)
    assert error.status == 422
    assert f"{size[0]}x{size[1]} pixels, wanted 16x16" in str(error)
    assert "--resize" in str(error)
    assert error.more == {"given": list(size), "wanted": [16, 16]}


def test_too_many_pixels_are_not_decoded() -> None:
    side = int(RESIZED_PIXELS**0.5)
    assert refused(png(side + 1, side), "bilinear").status == 413
    assert refused(png(side + 1, side), None).status == 413
    assert picture(png(side, side), SHAPE, "box")[1] == (side, side)


def test_a_request_says_what_was_resized() -> None:
    images = read_request("", png(32, 32), SHAPE, "bilinear")
    assert images.sizes == [(32, 32)]
    assert read_request("", png(16, 16), SHAPE, "bilinear").sizes == [None]
