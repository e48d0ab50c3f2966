"""The values of the records' column ``status`` other than ``ok`` and ``failed``."""

from __future__ import annotations

PRUNED = "cut"
"""The episode was not run: label-only already dominated its setting, and the trial was pruned."""
