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
from mipoison.victims.ask import DYNAMIC, Classifier, undone
from mipoison.victims.fingerprints import exported_digest, is_exported
from mipoison.victims.identity import earlier_state_digest, state_digest, structure
from mipoison.victims.weights import load_state

CHOICES = "module:factory (importable, returns an nn.Module) or file.pt2 (torch.export)"
MOST = 128
"""Images asked at a time, by a service as by a study (see ``mipoison.service.CHUNK``)."""
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class OwnVictim(nn.Module):
    """A classifier that the user brought: images (N, C, H, W) in [0, 1] to logits (N, K), float32. Frozen,
    eval mode, without gradients.

    Attributes:
        name: of the factory, or of the file without its folder. digest: see :func:`load_victim`.
        earlier: the digest that version 0.1.0 gave it: studies begun with that are continued.
        asked: how it is asked, see :class:`mipoison.victims.ask.Classifier`.
    """

    def __init__(
        self, module: nn.Module, name: str, digest: str, earlier: str, outputs: str | None = None
    ) -> None:
        super().__init__()
        self.name, self.digest, self.earlier = name, digest, earlier
        self.module = module
        self.asked = Classifier(module, name=name, outputs=outputs)
        self.training = False

    def train(self, mode: bool = True) -> OwnVictim:
        """Nothing changes: an exported program has one mode, and a victim is never trained here."""
        return self

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.asked(x_NCHW)


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
        raise ConfigError(f"--victim-state {state!r}: {source} has its own weights; leave it out")
    for name, path in (("--victim", source if exported else None), ("--victim-state", state)):
        if path is not None and not Path(path).expanduser().is_file():
            if Path(path).expanduser().is_dir():
                raise ConfigError(f"{name} {path!r} is a folder: name the file in it")
            raise ConfigError(f"{name} {path!r}: no such file (looked in {Path.cwd()})")


def short_name(source: str) -> str:
    """The name that records show: the factory's, or the file's without its folder."""
    return Path(source).name if is_exported(source) else source


@undone()
def load_victim(
    source: str | Path, state: str | Path | None = None, *, outputs: str | None = None
) -> OwnVictim:
    """Load a classifier onto the CPU.

    Its digest identifies name, weights (dtypes, shapes, bytes) and code (the factory's source file and the
    module's structure; of a ``.pt2`` the whole file), so that records of two classifiers never mix. It is
    taken of a copy that nobody has asked, without wrappers: see :mod:`mipoison.victims.identity`. Modules are
    looked for in the current folder first.

    Args:
        source: ``module:factory``, or a ``.pt2`` file of ``torch.export.save``. Both run code: use your own.
        state: weights for the factory's module: a safetensors file, or one of ``torch.save`` with a state
            dict in it, of which no code is run: see :mod:`mipoison.victims.weights`.
        outputs: ``logits`` or ``probabilities``; None: logits, refused later where they look like the others.

    Raises:
        ConfigError: it cannot be imported, built or loaded, or was exported for batches of some sizes alone;
            one line.
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
        return OwnVictim(exported, short_name(source), digest, digest, outputs)
    module, code = _build(source)
    if state is not None:
        load_state(module, source, state)
    h = hashlib.sha256(source.encode() + code)
    earlier = h.copy()
    h.update(f"{structure(module)}{state_digest(module)}".encode())
    earlier.update(f"{module!r}{earlier_state_digest(module)}".encode())
    module = module.eval().requires_grad_(False)
    return OwnVictim(module, source, h.hexdigest()[:16], earlier.hexdigest()[:16], outputs)


def _text(name: str, given: object) -> str:
    if isinstance(given, str | Path):
        return str(given)
    form = CHOICES if name == "source" else "the path of a file of weights"
    raise ConfigError(f"load_victim: {name} is a {type(given).__name__}: expected text, {form}")


def repeatable_digest(source: str | Path, state: str | Path | None) -> str:
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


def _check_batch(program: torch.export.ExportedProgram, source: str) -> None:
    """Refuse a program that was exported for some batches alone: 1 to 128 images are asked at a time."""
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
            f"export it with a "
            f"dynamic batch: {DYNAMIC}"
        )
