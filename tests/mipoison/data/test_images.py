"""Image files of other people: bounds before decoding, squares by hand, faults counted and named."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mipoison.data.images import (
    DataError,
    TooLargeError,
    grey_if_all_are,
    open_image,
    read_squares,
    some,
    to_square,
)


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> BytesIO:
    sink = BytesIO()
    image.save(sink, kind, **how)
    return BytesIO(sink.getvalue())


def test_too_many_pixels_are_refused_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (11, 10)))
    assert open_image(data, "L", max_pixels=110).size == (11, 10)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(TooLargeError, match="11x10 pixels, at most 109"):
        open_image(data, "L", max_pixels=109)


def test_sixteen_bits_are_scaled_and_turned_cameras_put_upright() -> None:
    deep = Image.fromarray(np.array([[0, 65535, 32896]], np.uint16))
    assert np.asarray(open_image(encoded(deep), "L")).tolist() == [[0, 255, 128]]
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned to the left
    wide = encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)
    assert open_image(wide, "RGB").size == (4, 8)


def test_the_square_is_central() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert to_square(Image.fromarray(pixels), 4)[..., 0].tolist() == pixels[:, 1:5].tolist()


def test_faults_are_counted_and_named(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 7).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "c.png").symlink_to(tmp_path / "nothing")
    fine = [tmp_path / "a.png"]
    assert read_squares("set", tmp_path, fine, "L", 4).tolist() == np.full((1, 4, 4, 1), 7).tolist()
    with pytest.raises(
        DataError, match=r"set: repair or remove 2 of 3 image files .*b\.png.*c\.png \(a broken link"
    ):
        read_squares("set", tmp_path, [*fine, tmp_path / "b.png", tmp_path / "c.png"], "L", 4)


def test_grey_needs_every_image() -> None:
    grey = np.repeat(np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), 3, 3)
    assert grey_if_all_are(grey).shape == (2, 2, 2, 1)
    grey[1, 0, 0, 2] += 1
    assert grey_if_all_are(grey) is grey
    assert some(list("abcdef")) == "a, b, c, d, e, ..."
