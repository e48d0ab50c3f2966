"""The strings that name a user's own classifier, checked without loading it.

Neither the classifier nor torch is imported, so that a mistake on the command line is answered at once.
"""

from __future__ import annotations

import re
from pathlib import Path

from mipoison.config import ConfigError
from mipoison.victims.fingerprints import is_exported

CHOICES = "module:factory (importable, returns an nn.Module) or file.pt2 (torch.export)"
OUTPUTS = ("logits", "probabilities")
"""What the user can say that a classifier returns."""
FLAG = "--victim-transforms"
TRANSFORMS = (
    "module:name (transforms, or a function without arguments that returns them), a name of torchvision's "
    "weights (ResNet18_Weights.DEFAULT), or a .json file (an image processor's configuration)"
)
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_WEIGHTS = re.compile(r"\w+_Weights\.\w+")


def check_source(source: str, state: str | None) -> None:
    """Check that two strings can name a classifier and its weights, without importing anything.

    Raises:
        ConfigError: a string of another form, a file that does not exist, or weights for a ``.pt2`` file,
            which contains its own.
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
    """The name shown in records: the factory's, or the file's name without its folder."""
    return Path(source).name if is_exported(source) else source


def is_statement(text: str) -> bool:
    """Whether a text states transforms as JSON, as studies keep them, instead of naming them."""
    return text.startswith("{")


def is_weights(text: str) -> bool:
    """Whether a text has the form of a name of torchvision's weights."""
    return _WEIGHTS.fullmatch(text) is not None


def check_transforms(text: str) -> None:
    """Check that a string can name transforms, without importing anything.

    Raises:
        ConfigError: a string of another form, or a file that does not exist.
    """
    if text.endswith(".json"):
        if not Path(text).expanduser().is_file():
            raise ConfigError(f"{FLAG} {text!r}: no such file (looked in {Path.cwd()})")
    elif not (is_statement(text) or is_weights(text) or _FACTORY.fullmatch(text)) or ".py:" in text:
        hint = "; write the module's name without .py" if ".py:" in text else ""
        raise ConfigError(f"{FLAG} {text!r}: expected {TRANSFORMS}{hint}")
