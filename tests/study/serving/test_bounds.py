"""What a body is, by its first bytes; how large it may be."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from worst_bodies import encoded, npy

from study.serving.bounds import (
    FORM,
    MAX_BYTES,
    MAX_IMAGES,
    RequestError,
    byte_bound,
    content_kind,
    stated_kind,
    too_many_bytes,
)

SHAPE = (1, 16, 16)


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "image/jpeg", "application/json"]
)
def test_first_bytes_decide_whatever_the_header_says(content_type: str) -> None:
    found = [
        content_kind(content_type, body[:512])
        for body in (
            encoded("PNG"),
            encoded("JPEG"),
            npy(np.zeros(SHAPE)),
            b'\xef\xbb\xbf \n{"images"',
            b"[1]",
        )
    ]
    json = "application/json"
    if content_type != "image/jpeg":
        assert found == ["image/png", "image/jpeg", "application/x-npy", json, json]
    assert found[0] == "image/png"


def test_the_header_counts_where_the_bytes_say_nothing() -> None:
    assert content_kind("image/png", b"hello") == "image/png"
    assert content_kind(f"{FORM}; boundary=x", encoded("PNG")) == FORM
    for content_type in ("", "text/html", "multipart/mixed; boundary=x"):
        with pytest.raises(RequestError, match="neither its first bytes") as caught:
            content_kind(content_type, b"hello")
        assert caught.value.status == 415
    assert stated_kind("text/plain") is None
    with pytest.raises(RequestError, match="JSON is UTF-8"):
        stated_kind("application/json; charset=latin1")


def test_bounds_hold_what_a_request_may_have() -> None:
    assert byte_bound("application/x-npy", SHAPE) > 8 * MAX_IMAGES * 256
    assert byte_bound("image/png", SHAPE) < byte_bound("image/png", SHAPE, resized=True) == MAX_BYTES
    assert byte_bound(None, SHAPE) == byte_bound(FORM, SHAPE) == MAX_BYTES
    assert max(byte_bound(kind, (3, 2000, 2000)) for kind in ("application/json", "image/png")) == MAX_BYTES
    assert too_many_bytes("image/png", SHAPE).status == 413


def test_an_error_survives_the_way_between_processes() -> None:
    error = RequestError(422, "no")
    error.more, error.headers = {"given": [1, 2]}, [(b"a", b"b")]
    again = pickle.loads(pickle.dumps(error))
    assert (again.status, str(again), again.more, again.headers) == (422, "no", error.more, error.headers)
