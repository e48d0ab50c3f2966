"""Loads the user's own classifier from ``module:factory`` or a ``.pt2`` file, and identifies it.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipoison.config import ConfigError, kind_of, one_line
from mipoison.process import import_here, own_context
from mipoison.victims.ask import DYNAMIC, Classifier
from mipoison.victims.fingerprints import exported_digest, is_exported
from mipoison.victims.identity import earlier_state_digest, state_digest, structure
from mipoison.victims.preprocess import preprocessed
from mipoison.victims.source import CHOICES as CHOICES
from mipoison.victims.source import check_source as check_source
from mipoison.victims.source import short_name as short_name
from mipoison.victims.weights import load_state

MOST = 128
"""Largest batch that a classifier gets, from a service or a study (see ``mipoison.service.CHUNK``)."""


class LoadedVictim(nn.Module):
    """The user's classifier, frozen: maps images (N, C, H, W) in [0, 1] to logits (N, K), float32.

    Attributes:
        name: the factory's name, or the file's name without its folder.
        digest: identifies the classifier, see :func:`load_victim`.
        earlier: the digest that versions before 0.1.0 computed, by which their studies are continued.
        module: the user's module.
        asked: the adapter that calls it, see :class:`mipoison.victims.ask.Classifier`.
    """

    def __init__(
        self, module: nn.Module, name: str, digest: str, earlier: str, outputs: str | None = None
    ) -> None:
        super().__init__()
        self.name, self.digest, self.earlier = name, digest, earlier
        self.module = module
        self.asked = Classifier(module, name=name, outputs=outputs)
        self.training = False

    def train(self, mode: bool = True) -> LoadedVictim:
        """Do nothing: a victim is never trained here, and an exported program has no training mode."""
        return self

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.asked(x_NCHW)


@own_context()
def load_victim(
    source: str | Path,
    state: str | Path | None = None,
    *,
    outputs: str | None = None,
    transforms: Any = None,
) -> LoadedVictim:
    """Load a classifier onto the CPU.

    Its digest covers name, weights (dtypes, shapes, bytes) and code (the factory's source file and the
    module's structure; for ``.pt2`` the whole file), so that records of two classifiers are never mixed. It
    is computed before the classifier is called, and does not depend on wrappers, see
    :mod:`mipoison.victims.identity`.

    Args:
        source: ``module:factory``, where the module is importable and the current folder is searched first,
            or a ``.pt2`` file written by ``torch.export.save``. Loading either runs code, so load only files
            that you trust.
        state: weights for the factory's module, a safetensors file or one of ``torch.save`` with a state
            dict. No code in it is run, see :mod:`mipoison.victims.weights`.
        outputs: what the classifier returns, ``logits`` or ``probabilities``. None means logits, and outputs
            that look like probabilities are refused when the classifier is checked.
        transforms: its preprocessing, see :func:`mipoison.victims.preprocess.preprocessing_from`. None means
            none, or the factory's own (:func:`mipoison.victims.preprocess.preprocessed`).

    Raises:
        ConfigError: the classifier cannot be imported, built or loaded, or was exported for a fixed batch
            size; one line.
    """
    source, state = _text("source", source), None if state is None else _text("state", state)
    check_source(source, state)
    if is_exported(source):
        digest = exported_digest(source)
        try:
            program = torch.export.load(Path(source).expanduser())
            exported: nn.Module = program.module()
        except Exception as error:
            raise ConfigError(f"victim {source!r}: not a torch.export file ({one_line(error)})") from error
        _check_batch(program, source)
        if transforms is not None:
            exported = preprocessed(exported, transforms)
            digest = hashlib.sha256(f"{digest}{exported.preprocessing}".encode()).hexdigest()[:16]
        return LoadedVictim(exported, short_name(source), digest, digest, outputs)
    module, code = _build(source)
    if state is not None:
        load_state(module, source, state)
    if transforms is not None:
        module = preprocessed(module, transforms)
    h = hashlib.sha256(source.encode() + code)
    earlier = h.copy()
    h.update(f"{structure(module)}{state_digest(module)}".encode())
    earlier.update(f"{module!r}{earlier_state_digest(module)}".encode())
    module = module.eval().requires_grad_(False)
    return LoadedVictim(module, source, h.hexdigest()[:16], earlier.hexdigest()[:16], outputs)


def _text(name: str, given: object) -> str:
    if isinstance(given, str | Path):
        return str(given)
    form = CHOICES if name == "source" else "the path of a file of weights"
    raise ConfigError(f"load_victim: {name} is {kind_of(given)}: expected text, {form}")


def repeatable_digest(source: str | Path, state: str | Path | None, *, transforms: Any = None) -> str:
    """The digest of a classifier, which is loaded twice to make sure that it is the same each time.

    Raises:
        ConfigError: the factory returns other weights each time; or see :func:`load_victim`.
    """
    first, second = (load_victim(source, state, transforms=transforms).digest for _ in range(2))
    if first != second:
        raise ConfigError(
            f"victim {source!r} has other weights each time it is made: give trained ones with "
            "--victim-state (victim_state in Python), or load them in the factory"
        )
    return first


def _build(source: str) -> tuple[nn.Module, bytes]:
    """Import and call the factory.

    Returns:
        Its module, and the bytes of the source file that defines the factory (b'' if there is none).
    """
    name, _, attribute = source.partition(":")
    found: object = import_here(name, f"victim {source!r}", attribute=attribute)
    if not callable(found):
        raise ConfigError(f"victim {source!r} is {kind_of(found)}: expected {CHOICES}")
    try:
        module = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise ConfigError(f"victim {source!r}: the factory failed: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"victim {source!r} returned {kind_of(module)}: expected an nn.Module")
    with contextlib.suppress(Exception):  # a module that cannot be copied is used itself
        module = copy.deepcopy(module)  # calls may change buffers, and the module may belong to the program
    try:
        code = Path(inspect.getsourcefile(inspect.unwrap(found)) or "").read_bytes()
    except (TypeError, OSError):  # a built-in, or an object without a source file
        code = b""
    return module, code


def _check_batch(program: torch.export.ExportedProgram, source: str) -> None:
    """Refuse a program that was exported for a fixed batch size, since batches have 1 to 128 images."""
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in inputs]
    for images in (v for v in values if isinstance(v, Tensor) and v.ndim == 4):
        n = images.shape[0]
        if isinstance(n, int):
            sizes = f"batches of {n} alone"
        else:
            bounds = program.range_constraints.get(n.node.expr)
            if bounds is None or (bounds.lower <= 2 and bounds.upper >= MOST):
                continue
            sizes = f"batches of {bounds.lower} to {bounds.upper}"
        raise ConfigError(
            f"victim {source!r} was exported for {sizes}: 1 to {MOST} images are asked at a time; "
            f"export it with a dynamic batch: {DYNAMIC}"
        )
