"""The defended API: victim, post-processing unit, query meter. The oracle is all that an attacker gets.

Shape suffixes: N queries, K classes, CHW image.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from mipoison.models.classifier import confidence_vectors
from mipoison.protocols import Defense
from mipoison.randomness import QueryRandomness, content_keys

CHUNK = 128
"""Queries per forward pass and per ``protect`` call, whatever the request's size: so results do not depend on
how a request is sharded."""


class DefendedService:
    """Answers images with released vectors: ``c' = PU(T(x), x)``.

    Answers are remembered once :meth:`remember` was told them, as an API with a cache would; a defense that
    is ``fresh`` draws again each time a query is repeated.

    Args:
        victim: classifier to logits, eval mode, on ``device``.
        defense: a fitted post-processing unit.
        secret: the defender's secret for keyed randomness.
        n_classes: K. device: where victim and defense compute.
    """

    def __init__(
        self, victim: nn.Module, defense: Defense, *, secret: bytes, n_classes: int, device: torch.device
    ) -> None:
        self._victim, self._defense, self._secret = victim, defense, secret
        self.n_classes, self.device = n_classes, device
        self._memory: dict[bytes, Tensor] = {}
        self._asked: Counter[bytes] = Counter()

    def clean(self, x_NCHW: Tensor) -> Tensor:
        """Clean vectors (N, K) on the CPU; the defender's eyes only."""
        parts = [
            confidence_vectors(self._victim, x_NCHW[i : i + CHUNK].to(self.device), batch=CHUNK).cpu()
            for i in range(0, len(x_NCHW), CHUNK)
        ]
        return torch.cat(parts) if parts else torch.empty(0, self.n_classes)

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

    def remember(self, x_NCHW: Tensor, released_NK: Tensor) -> None:
        """Keep answers that were computed elsewhere (other ranks): each is what the first asking gets."""
        for name, row in zip(_names(x_NCHW), released_NK.clone(), strict=True):
            self._memory[name + b"0"] = row

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
        names = _names(x_NCHW)
        here: Counter[bytes] = Counter()
        earlier = []
        for name in names:
            earlier.append(counts[name] + here[name] if self._defense.fresh else 0)
            here[name] += 1
        keys = [n + str(a).encode() for n, a in zip(names, earlier, strict=True)]
        missing = [i for i, k in enumerate(keys) if k not in self._memory]
        if missing:
            fresh = self.release(x_NCHW[missing], asked_N=[earlier[i] for i in missing])
            for i, row in zip(missing, fresh, strict=True):
                self._memory.setdefault(keys[i], row)
        counts.update(here)  # not before there is an answer
        return torch.stack([self._memory[k] for k in keys]) if keys else torch.empty(0, self.n_classes)


def chunk_count(n: int) -> int:
    """Number of chunks of a request of n queries."""
    return -(-n // CHUNK)


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
