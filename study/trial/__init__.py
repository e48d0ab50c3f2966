"""A trial: its description, how its episodes run on one or more ranks, and how failures are recorded."""

from mipoison._moved import forward

__getattr__ = forward(__name__, "study.trial.run")
