"""What is sent: PNG, lists in every order, base64; tokens come from the environment and are kept nowhere."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from mipoison.config import ConfigError
from study.auditing.template import Template, png

URL = "https://example.org/classify"
RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
GREY = RGB[..., :1]


@pytest.mark.parametrize("pixels", [RGB, GREY])
def test_a_png_is_the_image(pixels: np.ndarray) -> None:
    kind, body = Template(url=URL).encode(pixels)
    assert kind == "image/png"
    decoded = np.asarray(Image.open(io.BytesIO(body)))
    assert np.array_equal(decoded.reshape(pixels.shape), pixels)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("hwc", RGB), ("chw", np.moveaxis(RGB, 2, 0)), ("flat", RGB.ravel())],
)
def test_lists_in_every_order(layout: str, expected: np.ndarray) -> None:
    body = Template(url=URL, body='{"a": [{"b": "@image"}], "k": 1}', layout=layout, scale="byte")
    sent = json.loads(body.encode(RGB)[1])
    assert sent["k"] == 1
    assert sent["a"][0]["b"] == expected.tolist()
    unit = Template(url=URL, body='["@image"]', layout=layout)
    assert np.allclose(json.loads(unit.encode(RGB)[1])[0], expected / 255)


def test_grey_without_channels_and_base64() -> None:
    sent = json.loads(Template(url=URL, body='"@image"', layout="hw", scale="byte").encode(GREY)[1])
    assert sent == GREY[..., 0].tolist()
    with pytest.raises(ConfigError, match="layout hw"):
        Template(url=URL, body='"@image"', layout="hw").encode(RGB)
    coded = json.loads(Template(url=URL, body='{"i": "@png64"}').encode(RGB)[1])["i"]
    assert base64.b64decode(coded) == png(RGB)


def test_tokens_come_from_the_environment() -> None:
    template = Template(url=URL, headers=("Authorization: Bearer $TOKEN", "X-Plain: yes"))
    assert template.sent_headers({"TOKEN": "abc"}) == {"Authorization": "Bearer abc", "X-Plain": "yes"}
    assert "TOKEN" not in json.dumps(template.identity())
    assert template.identity() == Template(url=URL, headers=template.headers).identity()
    for other in (
        Template(url=URL),
        Template(url=URL, headers=template.headers, body='{"k": 1, "i": "@image"}'),
    ):
        assert other.identity() != template.identity()
    with pytest.raises(ConfigError, match="'TOKEN' is not set"):
        template.sent_headers({})
    with pytest.raises(ConfigError, match="not allowed") as raised:
        template.sent_headers({"TOKEN": "abc\r\nX: y"})
    assert "abc" not in str(raised.value)


def test_the_query_is_neither_shown_nor_stored() -> None:
    template = Template(url=f"{URL}?api_key=s3cret&v=2&s3cret#s3cret")
    assert template.shown_url == f"{URL}?api_key=...&v=...&..."
    assert "s3cret" not in json.dumps(template.identity())
    assert template.identity() != Template(url=f"{URL}?api_key=other&v=2&s3cret").identity()
    assert template.url.startswith(f"{URL}?api_key=s3cret&v=2")  # what is asked


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "ftp://a/b"}, "must begin with"),
        ({"url": "http:///b"}, "name a host"),
        ({"url": "http://user:secret@a/b"}, "credentials"),
        ({"url": "https://:secret@a/b"}, "credentials"),
        ({"url": "https://@a/b"}, "credentials"),
        ({"url": "https://[a/b?k=secret"}, "not a URL"),
        ({"url": "https://a:port/b?k=secret"}, "not a URL"),
        ({"url": "ftp://user:secret@a/b?key=secret#secret"}, "must begin with"),
        ({"url": URL, "body": "{"}, "body"),
        ({"url": URL, "body": '{"a": 1}'}, "once"),
        ({"url": URL, "body": '["@image", "@png64"]'}, "once"),
        ({"url": URL, "layout": "whc"}, "layout"),
        ({"url": URL, "scale": "percent"}, "scale"),
        ({"url": URL, "headers": ("no colon",)}, "Name: value"),
        ({"url": URL, "headers": ("a b: c",)}, "Name: value"),
    ],
)
def test_what_no_request_can_be_made_of(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        Template(**fields)  # type: ignore[arg-type]
    assert "secret" not in str(raised.value)
