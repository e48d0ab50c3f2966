"""What became of an episode: the values of the records' column ``status`` beside ``ok`` and ``failed``."""

from __future__ import annotations

PRUNED = "cut"
"""The episode was not run, because its setting was already dominated by label-only."""
