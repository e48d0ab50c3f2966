"""From images to released vectors. Studies, served units and an attacker's shadow copy all run this code.

The classifier computes clean vectors in chunks of 128 images. The defense picks, for each request, which of
its vectors it may change. Each chunk is then protected, with random numbers that are keyed by its images.

Shape suffixes: N queries, K classes, CHW image.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.models.classifier import confidence_vectors
from mipoison.protocols import CHUNK, Defense
from mipoison.randomness import QueryRandomness, content_keys


class NoRandomness(QueryRandomness):
    """What a defense gets that has nothing to draw from: drawing raises ConfigError.

    Args:
        n: number of queries. reason: the error's text.
    """

    def __init__(self, n: int, reason: str) -> None:
        super().__init__(torch.zeros(n, dtype=torch.int64))
        self.reason = reason

    def __getitem__(self, rows: slice | Tensor) -> NoRandomness:
        return NoRandomness(len(self.keys_N[rows]), self.reason)

    def uniform(self, width: int, stream: str) -> Tensor:
        raise ConfigError(self.reason)


class NoImages(Tensor):
    """What a defense gets that declares not to read the images: their shape. All else raises ConfigError."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func not in _OF_THE_SHAPE:
            raise ConfigError(
                "a defense that declares reads_image = False read the image: set reads_image = True"
            )
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


_OF_THE_SHAPE = {
    Tensor.__len__,
    Tensor.size,
    Tensor.dim,
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    Tensor.ndim.__get__,  # type: ignore[attr-defined]
}


def no_images(x_NCHW: Tensor) -> Tensor:
    """The shape of these images alone; it holds no pixel."""
    return torch.empty_like(x_NCHW, device="meta").as_subclass(NoImages)


def clean_vectors(
    model: Callable[[Tensor], Tensor], x_NCHW: Tensor, n_classes: int, device: torch.device
) -> Tensor:
    """The classifier's confidence vectors (N, K), float32, on the CPU.

    Args:
        model: images to logits, on ``device``: a network of ours, or a
            :class:`mipoison.victims.ask.Classifier`.
    """
    parts = [
        confidence_vectors(model, x_NCHW[i : i + CHUNK].to(device), batch=CHUNK).cpu()
        for i in range(0, len(x_NCHW), CHUNK)
    ]
    return torch.cat(parts) if parts else torch.empty(0, n_classes)


def victim_of(
    model: Callable[[Tensor], Tensor], n_classes: int, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """:func:`clean_vectors` of a classifier, for defenses that ask it again; it pickles if the model does."""
    return functools.partial(clean_vectors, model, n_classes=n_classes, device=device)


def chunk_count(n: int) -> int:
    """Number of chunks of a request of n queries."""
    return -(-n // CHUNK)


def chunk_rows(sizes: Sequence[int], couples: bool) -> list[slice]:
    """Rows of the chunks of several requests that are answered together.

    Args:
        sizes: number of queries of each request.
        couples: whether answers depend on the other queries of a request. If so, a chunk holds queries of one
            request only; else chunks run across requests, which is faster.
    """
    rows, start = [], 0
    for size in sizes if couples else [sum(sizes)]:
        rows += [slice(i, min(i + CHUNK, start + size)) for i in range(start, start + size, CHUNK)]
        start += size
    return rows


def protect_chunks(
    defense: Defense,
    c_NK: Tensor,
    x_NCHW: Tensor,
    chunks: Iterable[int] | None = None,
    *,
    secret: bytes | None,
    device: torch.device,
    asked_N: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
) -> dict[int, Tensor]:
    """Released vectors of chunks, from clean vectors: ``{chunk index: (<= 128, K) on the CPU}``.

    Args:
        defense: fitted, on ``device``.
        c_NK, x_NCHW: clean vectors (on the CPU) and images of all queries, also those of other chunks: which
            vectors are picked depends on the whole request.
        chunks: indices of the chunks to protect; None: all.
        secret: keys the random numbers; None is enough for a defense that draws none.
        asked_N: for fresh defenses, how often each query was asked before; None: never.
        sizes: number of queries of each request, if there are several; None: all queries are one request.

    Raises:
        ConfigError: the defense draws random numbers without a secret, or although it declares not to; or it
            reads the image although it declares not to.
    """
    sizes = [len(c_NK)] if sizes is None else list(sizes)
    picked_N = torch.cat([defense.pick(part) for part in c_NK.split(sizes)])
    rows = chunk_rows(sizes, defense.couples)
    fresh_N = list(asked_N or [0] * len(c_NK)) if defense.fresh else None
    return {
        k: defense.protect(
            c_NK[rows[k]].to(device),
            x_NCHW[rows[k]].to(device) if defense.reads_image else no_images(x_NCHW[rows[k]]),
            picked_N[rows[k]].to(device),
            rng=_randomness(defense, x_NCHW[rows[k]], secret, fresh_N and fresh_N[rows[k]]),
        ).cpu()
        for k in (range(len(rows)) if chunks is None else chunks)
    }


def _randomness(
    defense: Defense, x_NCHW: Tensor, secret: bytes | None, asked_N: list[int] | None
) -> QueryRandomness:
    name = type(defense).__name__
    if not defense.draws:
        reason = f"{name} drew random numbers, but declares draws = False: set draws = True in its __init__"
        return NoRandomness(len(x_NCHW), reason)
    if secret is None:
        return NoRandomness(len(x_NCHW), f"{name} draws keyed random numbers: give a secret")
    return QueryRandomness(content_keys(x_NCHW, secret, asked_N))


@dataclass(eq=False)
class Pipeline:
    """``c' = PU(T(x), x)``: a classifier and the fitted defense behind it, on one device.

    Attributes:
        model: images to logits. n_classes: K.
        defense: the fitted one, or a copy of it that asks this model: see :meth:`Defense.behind`.
        seconds_clean: time that clean vectors have taken so far, whoever asked for them.
    """

    model: Callable[[Tensor], Tensor]
    defense: Defense
    n_classes: int
    device: torch.device
    seconds_clean: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.defense = self.defense.behind(victim_of(self.model, self.n_classes, self.device))

    def clean(self, x_NCHW: Tensor) -> Tensor:
        """Clean vectors (N, K) on the CPU."""
        start = time.perf_counter()
        c_NK = clean_vectors(self.model, x_NCHW, self.n_classes, self.device)
        self.seconds_clean += time.perf_counter() - start
        return c_NK

    def release_chunks(
        self,
        x_NCHW: Tensor,
        chunks: Iterable[int] | None = None,
        *,
        secret: bytes | None,
        asked_N: Sequence[int] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> dict[int, Tensor]:
        """Released vectors of some chunks of the queries, or of all: see :func:`protect_chunks`."""
        return protect_chunks(
            self.defense, self.clean(x_NCHW), x_NCHW, chunks,
            secret=secret, device=self.device, asked_N=asked_N, sizes=sizes,
        )  # fmt: skip

    def release(
        self,
        x_NCHW: Tensor,
        *,
        secret: bytes | None,
        asked_N: Sequence[int] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> Tensor:
        """Released vectors (N, K) of all queries, on the CPU."""
        parts = self.release_chunks(x_NCHW, secret=secret, asked_N=asked_N, sizes=sizes)
        return torch.cat(list(parts.values())) if parts else torch.empty(0, self.n_classes)

    def release_as_if(self, c_NK: Tensor, x_NCHW: Tensor, *, secret: bytes | None) -> Tensor:
        """Released vectors (N, K) of one request, had the classifier answered ``c_NK`` to these images."""
        parts = protect_chunks(self.defense, c_NK, x_NCHW, secret=secret, device=self.device)
        return torch.cat(list(parts.values())) if parts else torch.empty(0, self.n_classes)
