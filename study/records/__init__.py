"""The files of a study (episodes, pictures, settings). Every file is validated before its content is used."""

from mipoison._moved import forward

__getattr__ = forward(__name__, "study.records.store")
