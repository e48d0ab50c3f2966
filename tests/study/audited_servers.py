"""Endpoints to audit: small web servers of three kinds around one classifier, with faults on demand."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE, CLASSES = 8, 3


def pictures(n: int, seed: int) -> np.ndarray:
    """Images (n, 8, 8, 1), uint8: one of three bright bands of varying strength, and noise."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 60, (n, SIDE, SIDE, 1))
    for i in range(n):
        band = i % CLASSES
        x[i, 2 * band : 2 * band + 3] += rng.integers(60, 190)
    return x.clip(0, 255).astype(np.uint8)


def folder_of(root: Path, images: np.ndarray) -> Path:
    """Write images as PNG files, a class folder each band."""
    for i, image in enumerate(images):
        path = root / f"class{i % CLASSES}" / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return root


def scores(x_HW: np.ndarray) -> list[float]:
    """A classifier: the softmax of the bands' mean brightness."""
    bands = np.array([x_HW[2 * k : 2 * k + 3].mean() for k in range(CLASSES)]) / 255
    e = np.exp(6 * (bands - bands.max()))
    return [float(v) for v in e / e.sum()]


Respond = Callable[[np.ndarray], list[float]]


class Counted:
    """A classifier that counts how often it was asked about each image, and may fail.

    Attributes:
        asked: digest of the image -> answers. fault: called with the number of the request before it is
            answered; may return a raw answer (status, headers, body) in place of the scores.
    """

    def __init__(
        self,
        respond: Respond = scores,
        fault: Callable[[int], tuple[int, dict[str, str], bytes] | None] = lambda n: None,
    ) -> None:
        self.respond, self.fault = respond, fault
        self.asked: Counter[str] = Counter()
        self.requests, self.headers = 0, dict[str, str]()
        self.lock = threading.Lock()

    def answer(
        self, x_HW: np.ndarray, wrap: Callable[[list[float]], Any]
    ) -> tuple[int, dict[str, str], bytes]:
        with self.lock:
            self.requests += 1
            raw = self.fault(self.requests)
            if raw is not None:
                return raw
            self.asked[hashlib.sha256(x_HW.astype(np.uint8).tobytes()).hexdigest()] += 1
        return 200, {"Content-Type": "application/json"}, json.dumps(wrap(self.respond(x_HW))).encode()


@contextmanager
def plain(model: Counted) -> Iterator[str]:
    """The standard library's server: {"instances": [{"pixels": [...]}]} in, pixels 0 to 255 in one list;
    {"predictions": [{"scores": [...]}]} out."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            model.headers = dict(self.headers)
            x = np.array(json.loads(body)["instances"][0]["pixels"]).reshape(SIDE, SIDE)
            status, headers, out = model.answer(x, lambda s: {"predictions": [{"scores": s}]})
            if status == 0:  # as if the process had died
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        def log_message(self, *of: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)  # ends soon when told
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/predict"
    finally:
        server.shutdown()
        server.server_close()


PLAIN = ["--body", '{"instances": [{"pixels": "@image"}]}', "--layout", "flat", "--scale", "byte"]
PLAIN += ["--scores", "predictions.0.scores"]


@contextmanager
def starlette(model: Counted, token: str) -> Iterator[str]:
    """A Starlette app: a PNG file in, behind a bearer token; {"classes": {name: score}} out."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def classify(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {token}":
            return Response("who are you?", 401)
        x = np.asarray(Image.open(io.BytesIO(await request.body())))
        names = ("cat", "dog", "eel")
        status, headers, out = model.answer(x, lambda s: {"classes": dict(zip(names, s, strict=True))})
        return Response(out, status, headers)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = Starlette(routes=[Route("/classify", classify, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}/classify"
    finally:
        server.should_exit = True
        thread.join(10)
