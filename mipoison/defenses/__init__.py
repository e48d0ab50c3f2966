"""Post-processing defenses. ``DEFENSES`` maps a name to its configuration class; there is no other table.

To add a defense, write a file with its configuration (``make()``, and ``KNOBS`` for the search) and its
class, and add a line here.
"""

from __future__ import annotations

from mipoison.config import Config
from mipoison.defenses.advexa import AdvExaConfig
from mipoison.defenses.codebook import CodebookConfig
from mipoison.defenses.dp_sgd import DPSGDConfig
from mipoison.defenses.label_only import LabelOnlyConfig
from mipoison.defenses.lfp import LFPConfig
from mipoison.defenses.lpa import LPAConfig
from mipoison.defenses.lpa_amortised import LPAAmortisedConfig
from mipoison.defenses.lpa_blind import LPABlindConfig
from mipoison.defenses.lpa_controls import LPAFlippedConfig, LPARandomConfig, LPAShuffledConfig
from mipoison.defenses.lpa_ensemble import LPAEnsembleConfig
from mipoison.defenses.mad import MADConfig
from mipoison.defenses.memguard import MemGuardConfig
from mipoison.defenses.mid import MIDConfig
from mipoison.defenses.noise import NoiseConfig, NoiseFreshConfig
from mipoison.defenses.none import NoneConfig
from mipoison.defenses.one_step import LPAOneStepConfig
from mipoison.defenses.onepara import OneParaConfig
from mipoison.defenses.pgd import PGDConfig
from mipoison.defenses.poi_mse import PoiMSEConfig
from mipoison.defenses.purifier import PurifierConfig
from mipoison.defenses.reverse_sigmoid import ReverseSigmoidConfig
from mipoison.defenses.robust_privacy import RobustPrivacyConfig
from mipoison.defenses.rounding import RoundingConfig
from mipoison.defenses.stealthy_shield import StealthyShieldConfig
from mipoison.defenses.tail_noise import TailNoiseConfig
from mipoison.defenses.temperature import TemperatureConfig
from mipoison.defenses.top_k import TopKConfig

DEFENSES: dict[str, type[Config]] = {
    "none": NoneConfig,
    "label-only": LabelOnlyConfig,
    "rounding": RoundingConfig,
    "codebook": CodebookConfig,
    "noise": NoiseConfig,
    "lpa": LPAConfig,
    "lfp": LFPConfig,
    "lpa-flipped": LPAFlippedConfig,
    "lpa-random": LPARandomConfig,
    "lpa-shuffled": LPAShuffledConfig,
    "tail-noise": TailNoiseConfig,
    "temperature": TemperatureConfig,
    "top-k": TopKConfig,
    "reverse-sigmoid": ReverseSigmoidConfig,
    "lpa-one-step": LPAOneStepConfig,
    "mad": MADConfig,
    "purifier": PurifierConfig,
    "memguard": MemGuardConfig,
    "lpa-ensemble": LPAEnsembleConfig,
    "noise-fresh": NoiseFreshConfig,
    "mid": MIDConfig,
    "pgd": PGDConfig,
    "poi-mse": PoiMSEConfig,
    "advexa": AdvExaConfig,
    "onepara": OneParaConfig,
    "lpa-amortised": LPAAmortisedConfig,
    "stealthy-shield": StealthyShieldConfig,
    "robust-privacy": RobustPrivacyConfig,
    "dp-sgd": DPSGDConfig,
    "lpa-blind": LPABlindConfig,
}

LABEL_ONLY, UNDEFENDED = "label-only", "none"
ANCHORS = (LABEL_ONLY, UNDEFENDED)
"""Defenses that every study evaluates and no search tunes: the label alone, and no defense at all."""


def retraining() -> list[str]:
    """Names of the defenses that retrain the victim. They cannot protect a classifier that is given."""
    return [name for name, config in DEFENSES.items() if config.MAKES and config().make().retrains]
