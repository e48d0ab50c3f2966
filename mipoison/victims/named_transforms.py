"""A classifier's preprocessing as named on a command line, and as a scene keeps it: one line of JSON.

Of a name the preprocessing is read once, on the machine where it is given. What is kept is plain numbers, so
that records are read, and their settings run again, without importing what they name.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from mipoison.config import ConfigError, kind_of, one_line
from mipoison.process import import_here
from mipoison.victims.preprocess import Preprocessing, preprocessing_from
from mipoison.victims.source import FLAG, TRANSFORMS, check_transforms, is_statement, is_weights


def statement(text: str) -> str:
    """The preprocessing that a text names, as one line of JSON, which :func:`stated` reads.

    Of such a line it is the same again.

    Args:
        text: ``module:name``, transforms or a function without arguments that returns them (importing it runs
            code), see :func:`mipoison.victims.preprocess.preprocessing_from`; ``ResNet18_Weights.DEFAULT``, a
            name of torchvision's weights; or a ``.json`` file, the configuration of an image processor of
            Hugging Face.

    Raises:
        ConfigError: it cannot be read, or is no preprocessing that can be stated; one line.
    """
    check_transforms(text)
    if is_statement(text):
        return _line(stated(text))
    if is_weights(text):
        found = _weights(text)
    elif text.endswith(".json"):
        found = _file(text)
    else:
        found = _imported(text)
    try:
        return _line(preprocessing_from(found))
    except ConfigError as error:
        raise ConfigError(f"{FLAG} {text!r}: {error}") from error


def stated(line: str) -> Preprocessing:
    """The preprocessing that a line of :func:`statement` states. No code that it names is run.

    Raises:
        ConfigError: no such line.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"transforms are no JSON: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"transforms are {kind_of(values)}, expected an object of JSON")
    try:
        return Preprocessing.from_plain(values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"transforms of an unknown form: {one_line(error)}") from error


def _line(found: Preprocessing) -> str:
    return json.dumps(found.plain(), sort_keys=True)


def _weights(text: str) -> Any:
    from torchvision import models  # takes a second

    kind, _, name = text.rpartition(".")
    try:
        return getattr(models, kind)[name]
    except (AttributeError, KeyError):
        known = sorted(found for found in dir(models) if found.endswith("_Weights"))
        said = f"choose from {', '.join(getattr(models, kind).__members__)}" if kind in known else (
            f"torchvision {_version()} has no {kind}; it has {', '.join(known)}"
        )  # fmt: skip
        raise ConfigError(f"{FLAG} {text!r}: {said}") from None


def _version() -> str:
    import torchvision

    return str(torchvision.__version__)


def _file(text: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(text).expanduser().read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{FLAG} {text!r} cannot be read: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{FLAG} {text!r} holds {kind_of(found)}, expected an object of JSON")
    return found


def _imported(text: str) -> Any:
    module, _, attribute = text.partition(":")
    found = import_here(module, f"{FLAG} {text!r}", attribute=attribute)
    if not (inspect.isroutine(found) or inspect.isclass(found)):
        return found
    try:
        return found()
    except Exception as error:
        raise ConfigError(
            f"{FLAG} {text!r}: called without arguments it failed ({one_line(error)}): expected {TRANSFORMS}"
        ) from error
