"""Values of the records' column ``status`` besides ``ok`` and ``failed``."""

from __future__ import annotations

PRUNED = "cut"
"""The episode was not run, because label-only already dominated its setting, or because the setting was only
screened (``screened`` is true then; the metrics of a running study do not count these)."""
