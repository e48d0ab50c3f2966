"""Exports a unit that is pure arithmetic with ``torch.export`` (.pt2) and to ONNX, for any number of queries.

The files run without this package: the first by ``torch.export.load``, the second by any runtime for ONNX.
They hold the unit alone, neither classifier nor secret. See :mod:`mipoison.serving.arithmetic`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.process import own_context
from mipoison.protocols import Defense
from mipoison.serving.arithmetic import Arithmetic, arithmetic_of

OPSET = 18
"""Version of ONNX's operators. Where values tie, TopK puts the lower index first, as a stable sort does."""
OUTPUT = "released"


@own_context()
def export_program(
    name: str,
    defense: Defense,
    image_shape: tuple[int, int, int],
    n_classes: int,
    path: str | Path | None = None,
) -> torch.export.ExportedProgram:
    """The unit as a program of ``torch.export``.

    Args:
        name: key of DEFENSES. defense: fitted. image_shape: (C, H, W). n_classes: K.
        path: where to save it (``.pt2``); None: it is not saved.

    Returns:
        The program. ``program.module()`` takes ``c`` (N, K), float32 clean vectors, and after it ``x``,
        float32 images, of a codebook, or ``g`` (N, K), float64 standard normal numbers, of noise.

    Raises:
        ConfigError: what the defense does is not arithmetic alone.
    """
    module = arithmetic_of(name, defense)
    arguments = _examples(module, image_shape, n_classes)
    n = torch.export.Dim("n", min=1, max=2**24)
    with torch.no_grad(), _quiet():
        program = torch.export.export(module, arguments, dynamic_shapes=tuple({0: n} for _ in arguments))
    if path is not None:
        torch.export.save(program, str(path))
    return program


@own_context()
def export_onnx(
    name: str, defense: Defense, image_shape: tuple[int, int, int], n_classes: int, path: str | Path
) -> None:
    """Write the unit as a model of ONNX: inputs as of :func:`export_program`, output ``released``.

    Raises:
        ConfigError: what the defense does is not arithmetic alone, or the extra ``onnx`` is not installed.
    """
    try:
        import onnxscript
    except ImportError as error:
        raise ConfigError(f'the extra onnx is missing ({error}): pip install "mipoison[onnx]"') from error
    op = getattr(onnxscript, f"opset{OPSET}")

    def stable_sort(values: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:
        size = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
        return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)

    program = export_program(name, defense, image_shape, n_classes)
    with torch.no_grad(), _quiet():
        model = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, verbose=False, output_names=[OUTPUT],
            input_names=list(arithmetic_of(name, defense).inputs),
            custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
        )  # fmt: skip
        assert model is not None
        model.save(str(path))


def _examples(module: Arithmetic, image_shape: tuple[int, int, int], n_classes: int) -> tuple[Tensor, ...]:
    """Two queries of each input's shape and dtype; their values do not matter."""
    values = {
        "c": torch.full((2, n_classes), 1 / n_classes),
        "x": torch.full((2, *image_shape), 0.5),
        "g": torch.ones(2, n_classes, dtype=torch.float64),
    }
    return tuple(values[name] for name in module.inputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters print and log."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
