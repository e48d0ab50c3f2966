"""The settings of a study: what is measured, what it runs on, and what is shown."""

from mipoison._moved import forward

__getattr__ = forward(__name__, "study.settings.study_settings")
