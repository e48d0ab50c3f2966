"""Random numbers: one generator for each role, and numbers that are keyed by the content of a query.

They are passed in as arguments; nothing here uses a global random generator.
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
    """A 63-bit seed that depends on ``seed`` and the role's name only (SHA-256)."""
    text = "\x1f".join(["mipoison", str(int(seed)), *map(str, role)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *role: str | int) -> torch.Generator:
    """A CPU generator for one role, e.g. ``generator(3, "victim", "init")``."""
    return torch.Generator().manual_seed(role_seed(seed, *role))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's shift is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _splitmix64(x: Tensor) -> Tensor:
    """A bijective mix of 64-bit counters (Steele, Lea & Flood 2014). int64 overflows as uint64 would."""
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def content_keys(x_NCHW: Tensor, secret: bytes, asked_N: list[int] | None = None) -> Tensor:
    """One 64-bit key per query: keyed BLAKE2b of the image at 8 bits, and of how often it was asked before.

    Pixels are rounded to 1/255 first. So an image and its 8-bit file have the same key, and so has an 8-bit
    image of which no pixel is changed by as much as half a step. An image that was resized or jittered has
    pixels near the middle between two steps, and a change of all pixels by 1e-4 gives it another key.
    Anybody can get another key by changing one pixel by one step. Without the secret no key can be predicted.

    Args:
        x_NCHW: queries in [0, 1].
        secret: the defender's secret, at most 64 bytes.
        asked_N: for fresh answers, how often each query was asked before; None for keyed answers.

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
    """Random numbers for a batch of queries. Row i depends on key i, the stream's name and the column only.

    So a query gets the same numbers whatever its batch, position and process.

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
