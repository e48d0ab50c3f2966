"""Which setting is tried next: the knobs as a search space, the sampler, pruning of dominated trials."""

from mipoison._moved import forward

__getattr__ = forward(__name__, "study.search.sampler")
