"""One trial: what it is, how its episodes are run and shared over ranks, and what is left if it fails."""

from mipoison._moved import forward

__getattr__ = forward(__name__, "study.trial.run")
