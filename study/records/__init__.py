"""What a study leaves: episodes, pictures, settings; every file is judged before it is used."""

from mipoison._moved import forward

__getattr__ = forward(__name__, "study.records.store")
