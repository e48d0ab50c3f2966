"""Reads a file of weights without running code from it: only tensors and plain values are loaded.

Other objects in a checkpoint (NumPy numbers, an optimizer's or a framework's own classes) are not created. A
:class:`Placeholder` takes the place of each, so that the weights beside them can be read.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import torch

from mipoison.config import ConfigError, one_line
from mipoison.data.images import some

SAVE = "save weights with torch.save(model.state_dict(), 'weights.pt'), or as safetensors"
_GLOBAL = re.compile(r"GLOBAL (\S+) (?:was not|whose module)")
_HEADER = 100_000_000
"""Largest header, in bytes, that the safetensors library accepts."""


class Placeholder:
    """Stands in a checkpoint for an object that was not created.

    Attributes:
        origin: full name of the object's class, or of the function that would have made it.
    """

    origin = "object"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Ignore the object's constructor arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the object's state."""


def _dictionary(*_: Any) -> dict[Any, Any]:
    return {}


def _list(*_: Any) -> list[Any]:
    return []


_PLAIN: dict[str, Any] = {"collections.defaultdict": _dictionary, "collections.deque": _list}
"""Containers that become a plain dictionary or list instead of a placeholder, so that their entries are
read."""


def read_checkpoint(file: str) -> tuple[Any, dict[str, str]]:
    """Read a file of weights, of torch.save or safetensors.

    The first bytes of the file decide which of the two it is, not its name alone.

    Returns:
        The file's contents, and aliases: safetensors stores a tensor that has several names once, so each
        dropped name is mapped to the kept one.

    Raises:
        ConfigError: another kind of file, or a damaged one; one line.
    """
    path, what = Path(file).expanduser(), f"--victim-state {file!r}"
    if path.is_dir():
        raise ConfigError(f"{what} is a folder: name the file of weights in it")
    try:
        if path.stat().st_size == 0:
            raise ConfigError(f"{what} is empty (0 bytes): {SAVE}")
        if path.suffix.lower() == ".safetensors" or _is_safetensors(path):
            return _safetensors(path)
        return _torch(path, what), {}
    except ConfigError:
        raise
    except safetensors.SafetensorError as error:
        raise ConfigError(f"{what}: damaged or no safetensors file ({one_line(error)}); {SAVE}") from error
    except Exception as error:
        raise ConfigError(f"{what} cannot be read: {_reason(path, error)}; {SAVE}") from error


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(9)
    if len(head) < 9 or head[8:] != b"{":
        return False
    return 2 <= struct.unpack("<Q", head[:8])[0] <= min(_HEADER, path.stat().st_size - 8)


def _safetensors(path: Path) -> tuple[Any, dict[str, str]]:
    with safetensors.safe_open(path, framework="pt", device="cpu") as opened:
        about = opened.metadata() or {}
        names = set(opened.keys())
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return tensors, {
        dropped: kept for dropped, kept in about.items() if kept in names and dropped not in names
    }


def _torch(path: Path, what: str) -> Any:
    """Read a file of ``torch.save``, in the zip or the legacy format, by torch's restricted unpickler."""
    unknown = _unknown(path, what)
    stand_ins: list[Any] = [
        (_PLAIN.get(name) or type("Placeholder", (Placeholder,), {"origin": name}), name) for name in unknown
    ]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # torch warns of other pickle protocols; unreadable ones raise
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        names = [found.group(1)] if found else unknown
        why = (
            f"it holds objects of {some(names)}, whose code is not run here"
            if names
            else "it is no file of torch.save, of another pickle protocol, or damaged"
        )
        raise ConfigError(f"{what} cannot be read: {why}; {SAVE}") from error


def _unknown(path: Path, what: str) -> list[str]:
    """Names of the classes and functions in a file that torch's restricted unpickler does not allow.

    Raises:
        ConfigError: an archive of another kind. EOFError: a truncated one.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                raise EOFError("no directory at the end of the archive")
        return []  # in the legacy format they cannot be listed; torch's error names the first of them
    with zipfile.ZipFile(path) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.namelist()}
    if "constants.pkl" in names:
        raise ConfigError(f"{what} is a TorchScript archive: {SAVE}")
    if "archive_format" in names or "serialized_exported_program.json" in names:
        raise ConfigError(f"{what} is a torch.export archive: give it as the victim itself (file.pt2)")
    return torch.serialization.get_unsafe_globals_in_checkpoint(str(path))


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read; replaces those messages of torch that only describe its internals."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = one_line(error)
    if isinstance(error, EOFError) or "PytorchStreamReader" in text or "unexpected EOF" in text:
        return f"it is truncated or damaged ({path.stat().st_size} bytes)"
    if isinstance(error, pickle.UnpicklingError):
        return "it is of another pickle protocol than torch.save's own, or damaged"
    if isinstance(error, KeyError | ValueError):
        return "it is no file of torch.save, or damaged"
    return text
