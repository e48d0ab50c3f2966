"""The defended API: a victim behind a post-processing unit, and the query-counting oracle that attackers get.

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

from mipoison.defenses import pipeline
from mipoison.defenses.pipeline import Pipeline, chunk_count
from mipoison.process import own_context
from mipoison.protocols import CHUNK, Defense
from mipoison.victims.ask import Classifier, classifier_of

__all__ = ["CHUNK", "DefendedService", "MeteredOracle", "Sliceable", "chunk_count", "clean_vectors"]

WINDOW = 8 * CHUNK
"""Queries that a stream reads at a time. They are one request, and all of the stream that is in memory."""
REMEMBERED = 2**17
"""Answers that a service keeps at most, besides those given to ``remember``; the oldest are dropped first."""


@runtime_checkable
class Sliceable(Protocol):
    """Images that can be read slice by slice: a tensor, an array, a ``numpy.memmap``, an HDF5 data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


class DefendedService:
    """Answers images with released vectors: ``c' = PU(T(x), x)``.

    :meth:`release` computes answers anew. :meth:`answer` remembers them, as an API with a cache would: the
    latest ``remembered`` of its own, and all that :meth:`remember` was given. An answer that was dropped is
    computed again, with the same result unless the defense couples the queries of a request. Answers of such
    a defense are remembered together with their whole request: the same image in another request is another
    query. A ``fresh`` defense draws again each time a query is repeated. :meth:`release_stream` remembers
    nothing.

    Args:
        victim: images to logits; it is asked as :class:`mipoison.victims.ask.Classifier` says.
        defense: a fitted post-processing unit.
        secret: the defender's secret, which keys the random numbers.
        n_classes: K. device: where victim and defense compute.
        remembered: how many answers are kept, besides those given to :meth:`remember`.
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
        self._pipeline = Pipeline(_asked(victim, device), defense, n_classes, device)
        self._defense, self._secret = defense, secret
        self.n_classes, self.device = n_classes, device
        self._given: dict[bytes, Tensor] = {}
        self._memory: OrderedDict[bytes, Tensor] = OrderedDict()
        self._remembered = remembered
        self._asked: Counter[bytes] = Counter()

    @property
    def seconds_clean(self) -> float:
        """Time that the classifier has taken so far; releasing vectors asks it as well."""
        return self._pipeline.seconds_clean

    @own_context()
    def clean(self, x_NCHW: Tensor) -> Tensor:
        """Clean vectors (N, K) on the CPU. The defender may see them; no attacker is given them."""
        return self._pipeline.clean(x_NCHW)

    @own_context()
    def release_chunks(
        self, x_NCHW: Tensor, chunks: Iterable[int], *, asked_N: list[int] | None = None
    ) -> dict[int, Tensor]:
        """Released vectors of some chunks of one request: ``{chunk index: (<=128, K) on the CPU}``.

        The defense picks among the clean vectors of the whole request, and protects each chunk by itself. So
        several processes can each compute some of the chunks.

        Args:
            asked_N: how often each query was asked before: a ``fresh`` defense then draws other numbers.
        """
        return self._pipeline.release_chunks(x_NCHW, chunks, secret=self._secret, asked_N=asked_N)

    @own_context()
    def release(self, x_NCHW: Tensor, *, asked_N: list[int] | None = None) -> Tensor:
        """Released vectors (N, K) of one request, computed anew."""
        return self._pipeline.release(x_NCHW, secret=self._secret, asked_N=asked_N)

    @own_context()
    def release_as_if(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        """Released vectors (N, K) of one request, had the classifier answered ``c_NK`` to these images.

        For an audit of the defense, with the randomness that the images are keyed with; no client is answered
        like this.
        """
        return self._pipeline.release_as_if(c_NK, x_NCHW, secret=self._secret)

    def release_stream(self, x: Sliceable | Iterable[Any], *, window: int = WINDOW) -> Iterator[Tensor]:
        """Released vectors of any number of queries, in memory that does not grow with their number.

        The vectors are those that :meth:`release` gives for all queries at once, unless the defense couples
        queries. Then each window is a request of its own: ``lfp`` with ``picks="request"`` poisons its share
        of each window.

        Args:
            x: queries in [0, 1]: something that can be sliced (tensor, array, memmap), or an iterable of
                batches (n, C, H, W) of any sizes, which are joined to windows. uint8 stands for x / 255.
            window: number of queries that are computed at a time, a multiple of CHUNK.

        Yields:
            Released vectors (<= window, K), float32, on the CPU, in the queries' order. A window is read when
            its vectors are asked for, not earlier.

        Raises:
            ValueError: a window that is no multiple of CHUNK, or queries that are not batches of images.
        """
        if window < 1 or window % CHUNK:
            raise ValueError(f"window = {window}: must be a multiple of {CHUNK} queries, at least {CHUNK}")
        return (self.release(x_NCHW) for x_NCHW in _windows(x, window))

    def remember(self, x_NCHW: Tensor, released_NK: Tensor) -> None:
        """Keep answers that were computed elsewhere, by other ranks, for the first time each is asked."""
        for name, row in zip(self._names(x_NCHW), released_NK.clone(), strict=True):
            self._given[name + b"0"] = row

    def session(self) -> Callable[[Tensor], Tensor]:
        """:meth:`answer` for one client, with a count of its own: the queries of others change no answer."""
        asked: Counter[bytes] = Counter()
        return lambda x_NCHW: self.answer(x_NCHW, asked=asked)

    def answer(self, x_NCHW: Tensor, *, asked: Counter[bytes] | None = None) -> Tensor:
        """What the API answers: the remembered vector of a query if there is one, else a new one.

        A fresh defense answers a repeated query with another vector, which is remembered under the number of
        the repetition.

        Args:
            x_NCHW: queries.
            asked: how often each query was asked before, updated here; None: the service's own count.

        Raises:
            ValueError: queries that are not a batch of images.
        """
        counts = self._asked if asked is None else asked
        if x_NCHW.ndim != 4:
            raise ValueError(f"queries must be images of shape (N, C, H, W), got {tuple(x_NCHW.shape)}")
        names = self._names(x_NCHW)
        here: Counter[bytes] = Counter()
        earlier = [0] * len(names)
        if self._defense.fresh:  # other defenses answer alike each time: nothing to count
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
        counts.update(here)  # a query that raised above was not answered and does not count
        out = torch.stack([found[k] for k in keys]) if keys else torch.empty(0, self.n_classes)
        for i in missing[-self._remembered :] if self._remembered else []:
            # A copy, because a row is a view that would keep the whole answer in memory.
            self._memory.setdefault(keys[i], found[keys[i]].clone())
        while len(self._memory) > self._remembered:
            self._memory.popitem(last=False)
        return out

    def _names(self, x_NCHW: Tensor) -> list[bytes]:
        names = _names(x_NCHW)
        request = hashlib.blake2b(b"".join(names), digest_size=16).digest() if self._defense.couples else b""
        return [name + request for name in names]

    def _recall(self, key: bytes) -> Tensor | None:
        told = self._given.get(key)
        return self._memory.get(key) if told is None else told


def clean_vectors(
    victim: nn.Module | Classifier, x_NCHW: Tensor, n_classes: int, device: torch.device
) -> Tensor:
    """Clean vectors (N, K) on the CPU, computed as a :class:`DefendedService` computes them."""
    return pipeline.clean_vectors(_asked(victim, device), x_NCHW, n_classes, device)


def _asked(victim: nn.Module | Classifier, device: torch.device) -> Classifier:
    return victim if isinstance(victim, Classifier) else classifier_of(victim, device=device)


def _windows(x: Sliceable | Iterable[Any], window: int) -> Iterator[Tensor]:
    """The queries of a stream as tensors (window, C, H, W); the last one may be shorter."""
    if isinstance(x, Sliceable) and not isinstance(x, Sequence):  # a list can be sliced, but holds batches
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
    """A batch as float32 images; uint8 stands for x / 255."""
    # An array may be a memmap: np.array reads it into memory.
    x_NCHW = torch.as_tensor(np.array(batch) if isinstance(batch, np.ndarray) else batch)
    if x_NCHW.ndim != 4:
        raise ValueError(f"queries must be images of shape (N, C, H, W), got {tuple(x_NCHW.shape)}")
    return x_NCHW.float() / 255 if x_NCHW.dtype == torch.uint8 else x_NCHW.float()


def _names(x_NCHW: Tensor) -> list[bytes]:
    return [
        hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x_NCHW.cpu().contiguous().numpy()
    ]


class MeteredOracle:
    """The attacker's side of the service: images in, released vectors out, queries counted.

    It holds one function and a counter. Victim, defense, secret and private data are no attributes of it.

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
        """Number of images asked so far."""
        return self.__count

    def query(self, x_NCHW: Tensor) -> Tensor:
        """Released vectors (N, K), float32, on the CPU, of images in [0, 1]."""
        self.__count += len(x_NCHW)
        return self.__ask(x_NCHW.detach().cpu()).clone()
