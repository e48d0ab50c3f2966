"""The user's own classifier: loading it, identifying it, checking it, and calling it without trusting it."""

from __future__ import annotations

from mipoison._moved import lazily

_HOME = {
    "Preprocessing": "mipoison.victims.preprocess",
    "load_victim": "mipoison.victims.own",
    "logits_of": "mipoison.victims.logits",
    "preprocessed": "mipoison.victims.preprocess",
}

__all__ = [*_HOME]

__getattr__, __dir__ = lazily(globals(), _HOME)
