"""The protected classifier as a Ray Serve deployment: HTTP in, released vectors out, batched.

Imported after ``study.rayenv`` has set Ray's environment. Shape suffixes: N images, K classes, CHW image.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass

import torch
from ray import serve
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from torch import Tensor

from mipoison.unit import load_unit
from mipoison.victim import load_victim
from mipoison.wrap import ProtectedClassifier
from study.intake import MAX_BYTES, RequestError, read_images, too_many_bytes

log = logging.getLogger("ray.serve")

SECRET_VARIABLE = "MIPOISON_SECRET"
MAX_BATCH = 32
"""Requests answered in one go."""
WAIT_S = 0.004
"""How long the first of them waits for others."""


@dataclass(frozen=True)
class Served:
    """What is served, as plain values; the secret is read from the environment where it is needed.

    Attributes:
        unit: folder. victim, victim_state: see ``mipoison.victim``. device: None for the GPU if there is one.
        threads: CPU threads of torch.
    """

    unit: str
    victim: str
    victim_state: str | None
    device: str | None
    threads: int

    def load(self) -> ProtectedClassifier:
        """The protected classifier.

        Raises:
            ConfigError: unit, classifier or secret that cannot be used.
        """
        unit = load_unit(self.unit, device=self.device)
        return unit.wrap(load_victim(self.victim, self.victim_state), secret=os.environ.get(SECRET_VARIABLE))


@serve.deployment(max_ongoing_requests=4 * MAX_BATCH, max_queued_requests=16 * MAX_BATCH)
class Endpoint:
    """``POST /release`` answers images with released vectors, ``GET /health`` says that it would."""

    def __init__(self, served: Served) -> None:
        torch.set_num_threads(served.threads)
        self.protected = served.load()

    async def __call__(self, request: Request) -> JSONResponse:
        try:
            return await self._answer(request)
        except RequestError as error:
            return JSONResponse({"error": str(error)}, status_code=error.status)
        except ClientDisconnect:
            return JSONResponse({"error": "the client went away"}, status_code=400)
        except Exception:  # the server goes on; what went wrong stays in its log
            log.exception("a request failed")
            return JSONResponse({"error": "internal error"}, status_code=500)

    async def _answer(self, request: Request) -> JSONResponse:
        route = {"/health": "GET", "/release": "POST"}.get(request.url.path)
        if route is None:
            raise RequestError(404, "no such path; POST /release or GET /health")
        if request.method != route:
            raise RequestError(405, f"{request.url.path} takes {route}")
        shape = list(self.protected.image_shape)
        if route == "GET":
            return JSONResponse({"status": "ok", "image_shape": shape, "n_classes": self.protected.n_classes})
        body = await _body(request)
        # In a thread: a large body must not keep the others waiting.
        x_NCHW = await asyncio.to_thread(
            read_images, request.headers.get("content-type", ""), body, self.protected.image_shape
        )
        c_NK = await self.release(x_NCHW)
        return JSONResponse({"released": c_NK.tolist(), "labels": c_NK.argmax(1).tolist()})

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=WAIT_S)
    async def release(self, requests: list[Tensor]) -> list[Tensor]:
        """Several requests' released vectors; none depends on the others."""
        answers = await asyncio.to_thread(self.protected.answer, requests)
        return [answer.cpu() for answer in answers]


async def _body(request: Request) -> bytes:
    """The request's body, not read beyond the bound."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > MAX_BYTES:
        raise too_many_bytes()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise too_many_bytes()
    return bytes(body)
