"""The search for settings: the search space of knobs, the sampler, and pruning of dominated trials."""

from mipoison._moved import forward

__getattr__ = forward(__name__, "study.search.sampler")
