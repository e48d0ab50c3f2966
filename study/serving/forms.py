"""Takes the files out of a multipart form, with python-multipart and bounds on the number of parts."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from study.serving.bounds import FORM, MAX_IMAGES, RequestError

MAX_BOUNDARY = 70
"""Longest boundary (RFC 2046)."""


def form_files(content_type: str, body: bytes) -> list[bytes]:
    """The content of each part of a form, in order.

    Args:
        content_type: the header with the boundary.

    Raises:
        RequestError: 400 for a malformed form, 413 for too many parts.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind.lower() != FORM.encode() or not 1 <= len(boundary) <= MAX_BOUNDARY:
        raise RequestError(400, f"{FORM} without a boundary of 1 to {MAX_BOUNDARY} characters")
    parts: list[bytearray] = []
    ended = [False]

    def begin() -> None:
        if len(parts) >= MAX_IMAGES:
            raise RequestError(413, f"a form of more than {MAX_IMAGES} parts")
        parts.append(bytearray())

    def data(chunk: bytes, start: int, end: int) -> None:
        parts[-1] += chunk[start:end]

    def end() -> None:
        ended[0] = True

    parser = MultipartParser(boundary, {"on_part_begin": begin, "on_part_data": data, "on_end": end})
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, f"malformed form ({type(error).__name__})") from error
    if not ended[0]:
        raise RequestError(400, "a form that ends early")
    if not parts:
        raise RequestError(400, f"a form without files; {FORM} is files: curl -F file=@a.png")
    return [bytes(part) for part in parts]
