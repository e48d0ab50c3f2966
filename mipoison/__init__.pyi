"""The public names of :mod:`mipoison`, for type checkers; ``__init__.py`` loads them at their first use."""

from mipoison.attacks import ATTACKS as ATTACKS
from mipoison.config import ConfigError as ConfigError
from mipoison.data.images import DataError as DataError
from mipoison.defenses import DEFENSES as DEFENSES
from mipoison.episode import EpisodeConfig as EpisodeConfig
from mipoison.episode import evaluate as evaluate
from mipoison.episode import run_episode as run_episode
from mipoison.plugins import load_plugin as load_plugin
from mipoison.scene import SceneConfig as SceneConfig
from mipoison.scene import prepare as prepare
from mipoison.scene import scaled as scaled
from mipoison.serving.protect import fit_unit as fit_unit
from mipoison.serving.protect import load_unit as load_unit
from mipoison.serving.protect import load_victim as load_victim
from mipoison.serving.unit import Unit as Unit

__version__: str
