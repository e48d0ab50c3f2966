"""Compiles another engine's gradient with ``torch.compile``, so that fewer and larger kernels run.

The gradient is traced once for each number of rows. On a GPU the code runs as CUDA graphs; on a CPU a C++
compiler is needed. Compiling takes tens of seconds, so it is worth while for hours of poisoning only.

Shape suffixes: N samples, K classes, CHW image.
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

from mipoison.alignment.engine import Engine
from mipoison.alignment.gradients import Aligned
from mipoison.alignment.memory import chunk_of
from mipoison.config import ConfigError

SUFFIX = "-compiled"
"""Appended to an engine's name for its compiled version."""
CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable: the folder in which torch keeps generated code."""
ROWS = 128
"""Rows of a compiled gradient in sample scope, the service's chunk size; fewer rows are padded to it."""


class Compiled(Engine):
    """Compiles the gradient of another engine when it is first used; ``align`` is not compiled.

    Args:
        inner: an engine that does not use autograd.

    Raises:
        ConfigError: at the first gradient, if torch cannot compile, e.g. without a C++ compiler.
    """

    def __init__(self, inner: Engine) -> None:
        super().__init__(inner.decoder, inner.target, scope=inner.scope, objective=inner.objective)
        self.inner = inner
        self.name = inner.name + SUFFIX  # type: ignore[misc]
        self._made: dict[torch.Size, Callable[[Tensor, Tensor], Tensor]] = {}

    def align(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        return self.inner.align(c_NK, x_NCHW)

    def values(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        return self.inner.values(c_NK, x_NCHW)

    @torch.no_grad()
    def gradient(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        n = len(c_NK)
        if n == 0:
            return self.inner.gradient(c_NK, x_NCHW)
        if self.scope == "batch":  # padding rows would take part in the batch's alignment
            return self._run(c_NK, x_NCHW)
        rows = min(ROWS, chunk_of(self.decoder, self.inner.live, c_NK.device))
        # Pad by repeating the last row: rows do not affect each other, and every new shape compiles again.
        order = torch.arange(-(-n // rows) * rows, device=c_NK.device).clamp_max(n - 1)
        parts = [self._run(c_NK[chunk], x_NCHW[chunk]) for chunk in order.split(rows)]
        return torch.cat(parts)[:n]

    def _run(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        if c_NK.shape not in self._made:
            try:
                self._made[c_NK.shape] = self._compile(c_NK, x_NCHW)
            except Exception as error:  # the code generator raises many types
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ConfigError(
                    f"engine {self.name!r} cannot be compiled here ({reason}); take {self.inner.name!r}"
                ) from error
        return self._made[c_NK.shape](
            c_NK, x_NCHW
        ).clone()  # the next CUDA graph replay overwrites the result

    def _compile(self, c_NK: Tensor, x_NCHW: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        # Each engine has a graph of its own that includes the weights: torch.compile of a method counts the
        # objects it was called on, and falls back to uncompiled code after eight of them.
        self.inner.gradient(
            c_NK, x_NCHW
        )  # fills the caches of the passes, which become constants of the graph
        graph = make_fx(lambda c, x: self.inner.gradient(c, x))(c_NK, x_NCHW)
        mode = "reduce-overhead" if c_NK.device.type == "cuda" else None
        use_private_code_cache()
        compiled: Callable[[Tensor, Tensor], Tensor] = torch.compile(graph, dynamic=False, mode=mode)
        compiled(c_NK, x_NCHW)
        return compiled

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the compiled code, which is valid in this process only."""
        return self.__dict__ | {"_made": {}}


def use_private_code_cache() -> None:
    """Make torch keep generated code below the home folder, unless the user chose another place.

    torch's default is a folder below the shared temporary one, and torch runs the code that it finds there:
    another account on the machine could create that folder first and plant code.
    """
    shared = os.path.join(tempfile.gettempdir(), "torchinductor_")
    if (os.environ.get(CACHE) or shared).startswith(shared):
        os.environ[CACHE] = str(Path("~/.cache/mipoison/torchinductor").expanduser())
