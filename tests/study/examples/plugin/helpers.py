"""Registries with the example plug-in, and without it afterwards."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from mipoison.attacks import ATTACKS
from mipoison.defenses import DEFENSES
from mipoison.plugins import loading

EXAMPLE = Path(__file__).parents[4] / "study" / "examples" / "plugin"


@contextlib.contextmanager
def registries_restored() -> Iterator[None]:
    """Forget the plug-ins that are loaded in the body, their stand-ins and modules."""
    before = dict(DEFENSES), dict(ATTACKS), dict(loading._loaded), set(sys.modules)
    try:
        yield
    finally:
        for table, earlier in zip((DEFENSES, ATTACKS, loading._loaded), before[:3], strict=True):
            table.clear()  # type: ignore[attr-defined]
            table.update(earlier)  # type: ignore[attr-defined]
        for name in [
            n for n in sys.modules if n not in before[3] and n.partition(".")[0].startswith("mipoison_")
        ]:
            del sys.modules[name]
