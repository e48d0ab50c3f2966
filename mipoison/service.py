"""The defended API: victim, post-processing unit, query meter. The oracle is all that an attacker gets.

Shape suffixes: N queries, K classes, CHW image.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from mipoison.models.classifier import confidence_vectors
from mipoison.protocols import CHUNK, Defense
from mipoison.randomness import QueryRandomness, content_keys
from mipoison.victims.ask import Classifier, classifier_of, undone

WINDOW = 8 * CHUNK
"""Queries of a stream that are one request: what the picking strategy sees, and all that is in memory."""
REMEMBERED = 2**17
"""Answers that a service keeps besides those that it was told; the oldest go first."""


@runtime_checkable
class Sliceable(Protocol):
    """Images that are read a slice at a time: a tensor, an array, a ``numpy.memmap``, an open HDF5 set."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


class DefendedService:
    """Answers images with released vectors: ``c' = PU(T(x), x)``.

    Answers are remembered once :meth:`remember` was told them, as an API with a cache would; a defense that
    is ``fresh`` draws again each time a query is repeated. Of other answers it keeps the latest
    ``remembered``; one that was forgotten is computed anew, which gives the same wherever a defense treats
    each vector by itself. Where it couples the queries of a request, an answer is remembered with its whole
    request: the same images in other requests are other queries. :meth:`release_stream` keeps nothing.

    Args:
        victim: classifier to logits; asked as :class:`mipoison.victims.ask.Classifier` does.
        defense: a fitted post-processing unit.
        secret: the defender's secret for keyed randomness.
        n_classes: K. device: where victim and defense compute.
        remembered: answers kept, besides those told.
    """

    def __init__(
        self,
        victim: nn.Module | Classifier,
        defense: Defense,
        *,
        secret: bytes,
        n_classes: int,
        device: torch.device,
        remembered: int = REMEMBERED,
    ) -> None:
        self._victim = victim if isinstance(victim, Classifier) else classifier_of(victim, device=device)
        self._defense, self._secret = defense, secret
        self.n_classes, self.device = n_classes, device
        self._told: dict[bytes, Tensor] = {}
        self._memory: OrderedDict[bytes, Tensor] = OrderedDict()
        self._remembered = remembered
        self._asked: Counter[bytes] = Counter()

    @undone()
    def clean(self, x_NCHW: Tensor) -> Tensor:
        """Clean vectors (N, K) on the CPU; the defender's eyes only."""
        parts = [
            confidence_vectors(self._victim, x_NCHW[i : i + CHUNK].to(self.device), batch=CHUNK).cpu()
            for i in range(0, len(x_NCHW), CHUNK)
        ]
        return torch.cat(parts) if parts else torch.empty(0, self.n_classes)

    @undone()
    def release_chunks(
        self, x_NCHW: Tensor, chunks: Iterable[int], *, asked_N: list[int] | None = None
    ) -> dict[int, Tensor]:
        """Released vectors of some chunks of one request: ``{chunk index: (<=128, K) on the CPU}``.

        The picking strategy sees the clean vectors of the whole request; each chunk is then protected alone.
        """
        c_NK = self.clean(x_NCHW)
        picked_N = self._defense.pick(c_NK)
        fresh = (asked_N or [0] * len(x_NCHW)) if self._defense.fresh else None
        out = {}
        for k in chunks:
            rows = slice(k * CHUNK, (k + 1) * CHUNK)
            x = x_NCHW[rows]
            keys_N = content_keys(x, self._secret, fresh[rows] if fresh is not None else None)
            out[k] = self._defense.protect(
                c_NK[rows].to(self.device),
                x.to(self.device),
                picked_N[rows].to(self.device),
                rng=QueryRandomness(keys_N),
            ).cpu()
        return out

    def release(self, x_NCHW: Tensor, *, asked_N: list[int] | None = None) -> Tensor:
        """Released vectors (N, K) of one request, computed anew."""
        chunks = self.release_chunks(x_NCHW, range(chunk_count(len(x_NCHW))), asked_N=asked_N)
        return torch.cat([chunks[k] for k in sorted(chunks)]) if chunks else torch.empty(0, self.n_classes)

    def release_stream(self, x: Sliceable | Iterable[Any], *, window: int = WINDOW) -> Iterator[Tensor]:
        """Released vectors of any number of queries, in memory that does not grow with it.

        Same vectors as :meth:`release` of everything at once, but for the picking strategy of ``lfp`` with
        ``picks="request"``: a share of the vectors and a balance of classes are kept within each window, not
        over the whole stream.

        Args:
            x: queries in [0, 1]: what can be sliced (tensor, array, memmap), or an iterable of batches
                (n, C, H, W) of any sizes, which are put together to windows. uint8 stands for x / 255.
            window: queries of a window, a multiple of CHUNK (so that chunks are those of one request).

        Yields:
            Released vectors (<= window, K), float32, on the CPU, in the queries' order. Nothing is read ahead
            of what is asked for, and nothing is remembered.

        Raises:
            ValueError: a window that is no multiple of CHUNK, or queries that are no batch of images.
        """
        if window < 1 or window % CHUNK:
            raise ValueError(f"window = {window}: must be a multiple of {CHUNK} queries, at least {CHUNK}")
        return (self.release(x_NCHW) for x_NCHW in _windows(x, window))

    def remember(self, x_NCHW: Tensor, released_NK: Tensor) -> None:
        """Keep answers that were computed elsewhere (other ranks): each is what the first asking gets."""
        for name, row in zip(self._names(x_NCHW), released_NK.clone(), strict=True):
            self._told[name + b"0"] = row

    def session(self) -> Callable[[Tensor], Tensor]:
        """An :meth:`answer` with its own count of askings: what a client sees does not depend on others."""
        asked: Counter[bytes] = Counter()
        return lambda x_NCHW: self.answer(x_NCHW, asked=asked)

    def answer(self, x_NCHW: Tensor, *, asked: Counter[bytes] | None = None) -> Tensor:
        """What the API answers: remembered if asked before (or, if fresh, on the first asking), else new.

        Args:
            x_NCHW: queries. asked: how often each query was asked before; None for the service's own count.

        Raises:
            ValueError: queries that are not a batch of images.
        """
        counts = self._asked if asked is None else asked
        if x_NCHW.ndim != 4:
            raise ValueError(f"queries must be images of shape (N, C, H, W), got {tuple(x_NCHW.shape)}")
        names = self._names(x_NCHW)
        here: Counter[bytes] = Counter()
        earlier = [0] * len(names)
        if self._defense.fresh:  # else nothing depends on it, and nothing is counted
            for i, name in enumerate(names):
                earlier[i] = counts[name] + here[name]
                here[name] += 1
        keys = [n + str(a).encode() for n, a in zip(names, earlier, strict=True)]
        found = {k: row for k in keys if (row := self._recall(k)) is not None}
        missing = [i for i, k in enumerate(keys) if k not in found]
        if missing:
            fresh = self.release(x_NCHW[missing], asked_N=[earlier[i] for i in missing])
            for i, row in zip(missing, fresh, strict=True):
                found.setdefault(keys[i], row)
        counts.update(here)  # not before there is an answer
        out = torch.stack([found[k] for k in keys]) if keys else torch.empty(0, self.n_classes)
        for i in missing[-self._remembered :] if self._remembered else []:
            # A copy: a row is a view that would keep the whole answer.
            self._memory.setdefault(keys[i], found[keys[i]].clone())
        while len(self._memory) > self._remembered:
            self._memory.popitem(last=False)
        return out

    def _names(self, x_NCHW: Tensor) -> list[bytes]:
        names = _names(x_NCHW)
        request = hashlib.blake2b(b"".join(names), digest_size=16).digest() if self._defense.couples else b""
        return [name + request for name in names]

    def _recall(self, key: bytes) -> Tensor | None:
        told = self._told.get(key)
        return self._memory.get(key) if told is None else told


def chunk_count(n: int) -> int:
    """Number of chunks of a request of n queries."""
    return -(-n // CHUNK)


def _windows(x: Sliceable | Iterable[Any], window: int) -> Iterator[Tensor]:
    """Images (window, C, H, W), fewer in the last, of what :meth:`DefendedService.release_stream` takes."""
    if isinstance(x, Sliceable) and not isinstance(x, Sequence):  # a list holds batches
        for start in range(0, len(x), window):
            yield _images(x[start : start + window])
        return
    kept: list[Tensor] = []
    count = 0
    for batch in x:
        rest = _images(batch)
        while len(rest):
            part, rest = rest[: window - count], rest[window - count :]
            kept.append(part)
            count += len(part)
            if count == window:
                yield torch.cat(kept)
                kept, count = [], 0
    if kept:
        yield torch.cat(kept)


def _images(batch: Any) -> Tensor:
    """A batch as float32 images; uint8 counts in 1/255."""
    x_NCHW = torch.as_tensor(
        np.array(batch) if isinstance(batch, np.ndarray) else batch
    )  # a memmap is copied
    if x_NCHW.ndim != 4:
        raise ValueError(f"queries must be images of shape (N, C, H, W), got {tuple(x_NCHW.shape)}")
    return x_NCHW.float() / 255 if x_NCHW.dtype == torch.uint8 else x_NCHW.float()


def _names(x_NCHW: Tensor) -> list[bytes]:
    return [
        hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x_NCHW.cpu().contiguous().numpy()
    ]


class MeteredOracle:
    """The attacker's side of the service: images in, released vectors out, queries counted.

    It holds one function and a counter; victim, defense, secret and private data are no attributes.

    Args:
        answer: usually a :meth:`DefendedService.session`.
        n_classes: K, public.
    """

    __slots__ = ("__ask", "__count", "__n_classes")

    def __init__(self, answer: Callable[[Tensor], Tensor], n_classes: int) -> None:
        self.__ask, self.__n_classes, self.__count = answer, n_classes, 0

    @property
    def n_classes(self) -> int:
        """K."""
        return self.__n_classes

    @property
    def queries(self) -> int:
        """Images asked so far."""
        return self.__count

    def query(self, x_NCHW: Tensor) -> Tensor:
        """Released vectors (N, K), float32, on the CPU, of images in [0, 1]."""
        self.__count += len(x_NCHW)
        return self.__ask(x_NCHW.detach().cpu()).clone()
