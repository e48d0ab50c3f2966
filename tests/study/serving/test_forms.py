"""Multipart forms: the files of a form, and forms that are none."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from worst_bodies import SHAPE, encoded, npy

from study.serving import pictures
from study.serving.bounds import MAX_IMAGES, RequestError
from study.serving.forms import form_files
from study.serving.request_parsing import FORM_PIXELS, read_images, read_request


def form(*files: bytes, name: str = "file") -> tuple[str, bytes]:
    """Content type and body, as the library requests writes them: not by the code that reads them."""
    sent = requests.Request("POST", "http://a", files=[(name, (f"{i}.png", f)) for i, f in enumerate(files)])
    prepared = sent.prepare()
    assert isinstance(prepared.body, bytes)
    return prepared.headers["Content-Type"], prepared.body


def refused(content_type: str, body: bytes) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        read_images(content_type, body, SHAPE)
    assert "\n" not in str(caught.value)
    return caught.value.status, str(caught.value)


def test_files_come_back_as_they_were_in_their_order() -> None:
    files = [bytes(np.random.default_rng(i).integers(0, 256, 3000, np.uint8)) for i in range(5)]
    files += [b"", b"\r\n--", b"\r\n"]
    assert form_files(*form(*files)) == files


def test_a_form_is_a_batch_of_its_files() -> None:
    array = np.random.default_rng(0).random((3, *SHAPE)).astype(np.float32)
    x = read_images(*form(encoded("PNG"), npy(array), encoded("PNG")), SHAPE)
    assert x.shape == (5, *SHAPE)
    assert np.array_equal(x[1:4], array)
    assert np.array_equal(x[0], read_images("", encoded("PNG"), SHAPE)[0])
    assert np.array_equal(x[0], x[4])


def test_what_is_no_form() -> None:
    content_type, body = form(encoded("PNG"))
    assert refused("multipart/form-data", body)[0] == 400  # no boundary
    assert refused("multipart/form-data; boundary=" + "x" * 100, body)[0] == 400
    assert refused(content_type, body[:-20])[0] == 400  # ends early
    assert refused(content_type, b"hello")[0] == 400
    assert refused(*form(b"hello")) == (
        422,
        "part 1 of the form: its first bytes tell none of: image/png, image/jpeg, application/x-npy, "
        "application/json",
    )
    assert refused(*form(encoded("PNG"), encoded("PNG")[:50]))[1].startswith("part 2 of the form:")


def test_a_form_of_too_many_is_refused() -> None:
    assert refused(*form(*[encoded("PNG")] * (MAX_IMAGES + 1)))[0] == 413
    assert refused(*form(npy(np.zeros((MAX_IMAGES, *SHAPE))), encoded("PNG")))[0] == 413
    assert len(read_images(*form(*[encoded("PNG")] * MAX_IMAGES), SHAPE)) == MAX_IMAGES


def wide(width: int, height: int) -> bytes:
    sink = io.BytesIO()
    Image.new("1", (width, height)).save(sink, "PNG")
    return sink.getvalue()


def test_pixels_are_summed_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    opens = pictures.open_image

    def watched(source: io.BytesIO, *terms: Any, **more: Any) -> Image.Image:
        decoded.append(1)
        return opens(source, *terms, **more)

    monkeypatch.setattr(pictures, "open_image", watched)
    two_megapixels = wide(2048, 1024)
    with pytest.raises(RequestError, match="pixels in the pictures of one form") as caught:
        read_request(*form(*[two_megapixels] * 8), SHAPE, "bilinear")
    assert caught.value.status == 413
    assert decoded == []
    assert len(read_request(*form(*[two_megapixels] * 7), SHAPE, "bilinear").x_NCHW) == 7
    assert len(decoded) == 7


def test_the_pixels_that_pictures_become_count_as_well() -> None:
    """Pictures of one pixel cost nothing to decode; each becomes an image of 512x512."""
    shape = (1, 512, 512)
    most = FORM_PIXELS // (512 * 512 + 1)
    assert len(read_request(*form(*[wide(1, 1)] * most), shape, "nearest").x_NCHW) == most
    with pytest.raises(RequestError, match="pixels in the pictures of one form") as caught:
        read_request(*form(*[wide(1, 1)] * (most + 1)), shape, "nearest")
    assert caught.value.status == 413


def test_mutants_of_a_form_are_read_or_refused() -> None:
    content_type, body = form(encoded("PNG"), encoded("JPEG"))
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        data = np.frombuffer(body, np.uint8).copy()
        data[rng.integers(0, len(data), rng.integers(1, 5))] = rng.integers(0, 256)
        try:
            found.append(read_images(content_type, data.tobytes(), SHAPE).shape[1:])
        except RequestError as error:
            found.append((error.status,))
    assert set(found) <= {SHAPE, (400,), (413,), (422,)}
    assert len(set(found)) > 2
