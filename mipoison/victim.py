"""The user's own classifier: where it comes from, what it is, and whether it can be attacked at all.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import inspect
import os
import re
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from mipoison.config import ConfigError, one_line
from mipoison.fingerprints import exported_digest, is_exported
from mipoison.identity import earlier_state_digest, state_digest, structure
from mipoison.weights import load_state

CHOICES = "module:factory (importable, returns an nn.Module) or file.pt2 (torch.export)"
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_SAME_ANSWER = 1e-4
"""Confidences that differ by more between two batches are no rounding."""


class OwnVictim(nn.Module):
    """A classifier that the user brought: images (N, C, H, W) in [0, 1] to logits (N, K). Frozen, eval mode.

    Attributes:
        name: of the factory, or of the file without its folder. digest: see :func:`load_victim`.
        earlier: the digest that version 0.1.0 gave it: studies begun with that are continued.
    """

    def __init__(self, module: nn.Module, name: str, digest: str, earlier: str) -> None:
        super().__init__()
        self.name, self.digest, self.earlier = name, digest, earlier
        self.module = module
        self.training = False

    def train(self, mode: bool = True) -> OwnVictim:
        """Nothing changes: an exported program has one mode, and a victim is never trained here."""
        return self

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.module(x_NCHW)


def check_source(source: str, state: str | None) -> None:
    """Whether the two strings can name a classifier; nothing is imported.

    Raises:
        ConfigError: no such form, a file that is not there, or weights for a file that has its own.
    """
    exported = is_exported(source)
    if not exported and (".py:" in source or not _FACTORY.fullmatch(source)):
        hint = "; write the module's name without .py" if ".py:" in source else ""
        raise ConfigError(f"victim {source!r}: expected {CHOICES}{hint}")
    if exported and state is not None:
        raise ConfigError(f"victim_state {state!r}: {source} has its own weights; leave it out")
    for name, path in (("victim", source if exported else None), ("victim_state", state)):
        if path is not None and not Path(path).expanduser().is_file():
            if Path(path).expanduser().is_dir():
                raise ConfigError(f"{name} {path!r} is a folder: name the file in it")
            raise ConfigError(f"{name} {path!r}: no such file (looked in {Path.cwd()})")


def short_name(source: str) -> str:
    """The name that records show: the factory's, or the file's without its folder."""
    return Path(source).name if is_exported(source) else source


def load_victim(source: str, state: str | None = None) -> OwnVictim:
    """Load a classifier onto the CPU.

    Its digest identifies name, weights (dtypes, shapes, bytes) and code (the factory's source file and the
    module's structure; of a ``.pt2`` the whole file), so that records of two classifiers never mix. It is
    taken of a copy that nobody has asked, without wrappers: see :mod:`mipoison.identity`. Modules are looked
    for in the current folder first.

    Args:
        source: ``module:factory``, or a ``.pt2`` file of ``torch.export.save``. Both run code: use your own.
        state: weights for the factory's module: a safetensors file, or one of ``torch.save`` with a state
            dict in it, of which no code is run: see :mod:`mipoison.weights`.

    Raises:
        ConfigError: it cannot be imported, built or loaded; one line.
    """
    check_source(source, state)
    if is_exported(source):
        digest = exported_digest(source)
        try:
            exported: nn.Module = torch.export.load(Path(source).expanduser()).module()
        except Exception as error:
            raise ConfigError(f"victim {source!r}: not a torch.export file ({one_line(error)})") from error
        return OwnVictim(exported, short_name(source), digest, earlier=digest)
    module, code = _build(source)
    if state is not None:
        load_state(module, source, state)
    h = hashlib.sha256(source.encode() + code)
    earlier = h.copy()
    h.update(f"{structure(module)}{state_digest(module)}".encode())
    earlier.update(f"{module!r}{earlier_state_digest(module)}".encode())
    module = module.eval().requires_grad_(False)
    return OwnVictim(module, source, h.hexdigest()[:16], earlier.hexdigest()[:16])


def repeatable_digest(source: str, state: str | None) -> str:
    """The digest, after loading twice.

    Raises:
        ConfigError: the factory draws other weights each time; or see :func:`load_victim`.
    """
    first, second = load_victim(source, state).digest, load_victim(source, state).digest
    if first != second:
        raise ConfigError(
            f"victim {source!r} has other weights each time it is made: give trained ones with victim_state, "
            "or load them in the factory"
        )
    return first


def _build(source: str) -> tuple[nn.Module, bytes]:
    """The factory's module, and the bytes of the source file that the factory stands in."""
    name, _, attribute = source.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        found: object = importlib.import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        where = (
            f"; looked in {os.getcwd()} and the installed packages" if isinstance(error, ImportError) else ""
        )
        raise ConfigError(f"victim {source!r} cannot be imported: {one_line(error)}{where}") from error
    if not callable(found):
        raise ConfigError(f"victim {source!r} is a {type(found).__name__}: expected {CHOICES}")
    try:
        module = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise ConfigError(f"victim {source!r}: the factory failed: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"victim {source!r} returned a {type(module).__name__}: expected an nn.Module")
    with contextlib.suppress(Exception):  # what cannot be copied is used as it is
        module = copy.deepcopy(module)  # of the importing program's own: its buffers may count our calls
    try:
        code = Path(inspect.getsourcefile(inspect.unwrap(found)) or "").read_bytes()
    except (TypeError, OSError):  # built in, or an object without a file
        code = b""
    return module, code


@torch.no_grad()
def check_victim(victim: nn.Module, name: str, x_NCHW: Tensor, y_N: Tensor, n_classes: int) -> None:
    """Ask a few images and judge the answers.

    Args:
        victim: on the device of ``x_NCHW``. name: for messages.
        x_NCHW: private training images, at least two.
        y_N: their labels, 0 to K-1.
        n_classes: K, the private classes.

    Raises:
        ConfigError: it fails on such images; gives another number of outputs, probabilities in place of
            logits, or numbers that are not finite; answers differently when asked again or among other
            images; or recognises its training images no better than chance.
    """
    shape = "x".join(map(str, x_NCHW.shape[1:]))
    try:
        logits_NK = victim(x_NCHW)
        alone_1K, again_NK = victim(x_NCHW[:1]), victim(x_NCHW)
    except Exception as error:
        raise ConfigError(
            f"victim {name} fails on a batch of {shape} images in [0, 1]: {one_line(error)}; what it needs "
            "beyond (another size, normalising, grey to RGB) belongs into the module"
        ) from error
    if not isinstance(logits_NK, Tensor) or logits_NK.ndim != 2 or len(logits_NK) != len(x_NCHW):
        got = tuple(logits_NK.shape) if isinstance(logits_NK, Tensor) else type(logits_NK).__name__
        raise ConfigError(f"victim {name} returns {got} for {len(x_NCHW)} images: expected logits (N, K)")
    if logits_NK.shape[1] != n_classes:
        raise ConfigError(
            f"victim {name} has {logits_NK.shape[1]} outputs, the data {n_classes} private classes: they "
            "must be the same, in the order of the labels (of a folder: the sorted class names)"
        )
    if not bool(logits_NK.isfinite().all()):
        raise ConfigError(f"victim {name} gives logits that are not finite on {shape} images in [0, 1]")
    if bool((logits_NK >= 0).all()) and bool(((logits_NK.sum(1) - 1).abs() < 1e-4).all()):
        raise ConfigError(f"victim {name} returns probabilities: return logits, the values before softmax")
    c_NK = torch.softmax(logits_NK.double(), 1)
    if float((torch.softmax(again_NK.double(), 1) - c_NK).abs().max()) > _SAME_ANSWER:
        raise ConfigError(
            f"victim {name} answers the same images differently when asked again: is eval() set?"
        )
    if float((torch.softmax(alone_1K.double(), 1) - c_NK[:1]).abs().max()) > _SAME_ANSWER:
        raise ConfigError(
            f"victim {name} answers an image differently among others (batch statistics): export it, or use "
            "it, in eval mode"
        )
    accuracy = float((c_NK.argmax(1) == y_N).double().mean())
    if accuracy <= 1 / n_classes:
        raise ConfigError(
            f"victim {name} recognises {accuracy:.0%} of {len(y_N)} private training images, no better than "
            "chance: is it trained, and are its outputs in the order of the labels (sorted class names)?"
        )
