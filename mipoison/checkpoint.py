"""Reading a file of weights: tensors and plain values, never code.

What else a checkpoint holds (a NumPy number, an optimizer's or a framework's own objects) is not built: an
inert stand-in takes its place, so that the weights beside it can be read.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import torch

from mipoison.config import ConfigError, one_line

SAVE = "save weights with torch.save(model.state_dict(), 'weights.pt'), or as safetensors"
_HEADER = 100_000_000
"""The longest header of a safetensors file that safetensors itself reads, in bytes."""


class Unread(dict[Any, Any]):
    """In place of an object that was not built. A dictionary, so that entries of one are kept.

    Attributes:
        origin: the name of its class or function.
    """

    origin = "object"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Nothing is kept of it."""


def read_checkpoint(file: str) -> tuple[Any, dict[str, str]]:
    """What a file of weights holds, and of safetensors the names that were dropped -> the one that was kept.

    The kind of the file is told from its first bytes, not from its name.

    Raises:
        ConfigError: no such kind, damaged, or a file for another purpose; one line.
    """
    path, what = Path(file).expanduser(), f"victim_state {file!r}"
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
    """A file of ``torch.save``, of either format, by torch's restricted unpickler."""
    unknown: list[str] = []
    if zipfile.is_zipfile(path):
        inside = zipfile.ZipFile(path).namelist()
        if any(name.endswith(("constants.pkl", "code/")) or "/code/" in name for name in inside):
            raise ConfigError(f"{what} is a TorchScript archive: {SAVE}")
        if any(
            name.rpartition("/")[2] in ("archive_format", "serialized_exported_program.json")
            for name in inside
        ):
            raise ConfigError(f"{what} is a torch.export archive: give it as the victim itself (file.pt2)")
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    stand_ins: list[Any] = [(type("Unread", (Unread,), {"origin": name}), name) for name in unknown]
    with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        warnings.simplefilter("ignore")  # of other pickle protocols: what cannot be read raises
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(path: Path, error: Exception) -> str:
    """Why, without the advice for programmers that torch adds (to load with code, which is not offered)."""
    text = one_line(error)
    if isinstance(error, pickle.UnpicklingError):
        name = text.partition("GLOBAL ")[2].partition(" ")[0]
        if name:
            return f"it holds an object of {name}, whose code is not run here"
        if "operand" in text:
            return "it is a pickle of another protocol or no file of torch.save"
        return "it is no file of torch.save, or damaged"
    if isinstance(error, EOFError) or "PytorchStreamReader" in text or "central directory" in text:
        return f"it is truncated or damaged ({path.stat().st_size} bytes)"
    return text
