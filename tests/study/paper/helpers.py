"""A small run of the paper's rows, as a command line."""

from __future__ import annotations

TINY = "--dataset facescrub --faces digits --executor local --seeds 3"
TINY += " --limit 120 --victim-steps 30 --decoder-steps 16"
