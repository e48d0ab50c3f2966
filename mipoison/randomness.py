"""Randomness is passed in: one generator per role, and numbers keyed by the content of a query.

Nothing in this package touches a global random state.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

# Shape suffixes: N queries, K classes, CHW image.

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX2 = 0x94D049BB133111EB - (1 << 64)


def role_seed(seed: int, *role: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and the role's name alone (SHA-256)."""
    text = "\x1f".join(["mipoison", str(int(seed)), *map(str, role)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *role: str | int) -> torch.Generator:
    """A CPU generator for one role, e.g. ``generator(3, "victim", "init")``."""
    return torch.Generator().manual_seed(role_seed(seed, *role))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _splitmix64(x: Tensor) -> Tensor:
    """Steele, Lea & Flood 2014: a bijective mix of 64-bit counters (int64 wraps as uint64 does)."""
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def content_keys(x_NCHW: Tensor, secret: bytes, asked_N: list[int] | None = None) -> Tensor:
    """One 64-bit key per query: keyed BLAKE2b of the image at 8 bits, and of how often it was asked before.

    The pixels are rounded to 1/255 first, so that an image and its 8-bit file draw the same noise, and no
    change below half a step of an image on that grid draws anew. An image off the grid (resized, jittered)
    has pixels near the edge of a step: there a change of 1e-4 of all pixels draws anew already. Nobody is
    kept from drawing anew: one pixel moved by one step is another image. Without the secret the keys cannot
    be predicted.

    Args:
        x_NCHW: queries in [0, 1].
        secret: the defender's secret, at most 64 bytes.
        asked_N: for answers that are fresh each time, the number of earlier askings; None for keyed answers.

    Returns:
        int64 tensor of shape (N,).
    """
    pixels = (x_NCHW.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous().numpy()
    keys = []
    for i in range(len(pixels)):
        h = hashlib.blake2b(pixels[i].tobytes(), digest_size=8, key=secret)
        if asked_N is not None:
            h.update(asked_N[i].to_bytes(8, "big"))
        keys.append(int.from_bytes(h.digest(), "big", signed=True))
    return torch.tensor(keys, dtype=torch.int64)


class QueryRandomness:
    """Random numbers for a batch of queries: row i depends on key i, the stream's name and the column only.

    So the same query gets the same numbers in every batch, order, process and shard.

    Args:
        keys_N: int64 keys, see :func:`content_keys`.
    """

    def __init__(self, keys_N: Tensor) -> None:
        self.keys_N = keys_N

    def __len__(self) -> int:
        return len(self.keys_N)

    def __getitem__(self, rows: slice | Tensor) -> QueryRandomness:
        return QueryRandomness(self.keys_N[rows])

    def uniform(self, width: int, stream: str) -> Tensor:
        """Uniform numbers in (0, 1): float64 of shape (N, width)."""
        salt = role_seed(0, "stream", stream)
        columns = _splitmix64(torch.arange(width, dtype=torch.int64) + salt)
        bits = _splitmix64(_splitmix64(self.keys_N[:, None]) ^ columns[None, :])
        return (_shift(bits, 11).double() + 0.5) * 2.0**-53

    def normal(self, width: int, stream: str) -> Tensor:
        """Standard normal numbers (Box-Muller): float64 of shape (N, width)."""
        u = self.uniform(2 * width, stream)
        return torch.sqrt(-2 * torch.log(u[:, 0::2])) * torch.cos(2 * math.pi * u[:, 1::2])
