"""An engine's gradient, traced once for a number of rows and compiled: fewer, larger kernels.

``torch.compile`` generates code, on a GPU as CUDA graphs, and on a CPU needs a C++ compiler. It takes tens of
seconds, so it pays for hours of poisoning. Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from mipoison.alignment.engines import SUFFIX, Engine
from mipoison.alignment.gradients import Aligned
from mipoison.alignment.memory import chunk_of
from mipoison.config import ConfigError

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable: where torch keeps generated code."""
ROWS = 128
"""Rows of a compiled gradient in sample scope: those of the service's chunks; fewer are filled up."""


class Compiled(Engine):
    """The gradient of another engine, compiled at its first use; ``align``, which only measures, is not.

    Args:
        inner: any engine without autograd in it.

    Raises:
        ConfigError: at the first gradient, where torch cannot compile (no C++ compiler, say).
    """

    def __init__(self, inner: Engine) -> None:
        super().__init__(inner.decoder, inner.target, scope=inner.scope, objective=inner.objective)
        self.inner = inner
        self.name = inner.name + SUFFIX  # type: ignore[misc]
        self._made: dict[torch.Size, Callable[[Tensor, Tensor], Tensor]] = {}

    def align(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        return self.inner.align(c_NK, x_NCHW)

    @torch.no_grad()
    def gradient(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        n = len(c_NK)
        if n == 0:
            return self.inner.gradient(c_NK, x_NCHW)
        if self.scope == "batch":  # rows that fill up would take part in the batch's alignment
            return self._run(c_NK, x_NCHW)
        rows = min(ROWS, chunk_of(self.decoder, self.inner.live, c_NK.device))
        # The last row again and again: no row depends on another, and each shape compiles anew.
        order = torch.arange(-(-n // rows) * rows, device=c_NK.device).clamp_max(n - 1)
        parts = [self._run(c_NK[chunk], x_NCHW[chunk]) for chunk in order.split(rows)]
        return torch.cat(parts)[:n]

    def _run(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        if c_NK.shape not in self._made:
            try:
                self._made[c_NK.shape] = self._compile(c_NK, x_NCHW)
            except Exception as error:  # whatever the code generator finds missing
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ConfigError(
                    f"engine {self.name!r} cannot be compiled here ({reason}); take {self.inner.name!r}"
                ) from error
        return self._made[c_NK.shape](c_NK, x_NCHW).clone()  # a CUDA graph writes to the same memory again

    def _compile(self, c_NK: Tensor, x_NCHW: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        # A graph of its own each, weights included: torch.compile of a method counts its instances, and gives
        # up after eight.
        self.inner.gradient(c_NK, x_NCHW)  # makes what the passes keep between calls: constants of the graph
        graph = make_fx(lambda c, x: self.inner.gradient(c, x))(c_NK, x_NCHW)
        mode = "reduce-overhead" if c_NK.device.type == "cuda" else None
        keep_code_at_home()
        compiled: Callable[[Tensor, Tensor], Tensor] = torch.compile(graph, dynamic=False, mode=mode)
        compiled(c_NK, x_NCHW)
        return compiled

    def __getstate__(self) -> dict[str, Any]:
        """Without the code, which belongs to this process."""
        return self.__dict__ | {"_made": {}}


def keep_code_at_home() -> None:
    """Generated code is kept, and run again, from the home folder, unless the user chose another place.

    torch's default is a folder in the shared temporary one, which it takes over from whoever made it first:
    another account could plant code there.
    """
    shared = os.path.join(tempfile.gettempdir(), "torchinductor_")
    if (os.environ.get(CACHE) or shared).startswith(shared):
        os.environ[CACHE] = str(Path("~/.cache/mipoison/torchinductor").expanduser())
