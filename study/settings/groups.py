"""The groups of a study's settings: the fields of the command line, their texts and their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mipoison.data.datasets import dataset_choices
from study.search.objectives import OBJECTIVES
from study.search.samplers import SAMPLERS
from study.settings.names import ALL
from study.settings.registered import LABEL_ATTACKER, attackers, families

DEFAULT_ATTACKERS = (LABEL_ATTACKER, "passive", "ridge", "kernel", "trees", "mixtures")
"""The floor, the paper's attacker, and the strongest for their cost. In each of twelve settings of five
defenses (digits, three seeds, scale quick) ``kernel`` reached the least error of those that ask about their
images alone, in less time than one decoder, and ``mixtures`` a smaller one where a defense perturbs vectors;
``trees`` is the next that is no kernel. Decoders on rounded vectors and on labels, and ``mlp``, were the
strongest nowhere. ``suite`` is the whole one."""
DEFAULT_DEFENSES = ("rounding", "noise", "codebook", "lpa", "lfp")
"""The paper's two defenses, two controls that they have to beat, and a release made to be certified."""
WHOLE_SUITE = "suite"
Stacked = Literal["auto", "on", "off"]


def _names(text: str) -> Any:
    return tyro.conf.arg(help=text, metavar="NAME [NAME ...]")


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """The data, their split, and what determines the order of floating-point sums."""

    dataset: Annotated[str, tyro.conf.arg(help=f"the victim's data: {dataset_choices()}")] = "digits"
    """``--help`` shows the annotation's text instead of this one."""
    auxiliary: Literal["same", "disjoint"] = "same"
    """the attacker's images: others of the private classes (same), or other classes (disjoint, the paper)"""
    image_size: int | None = None
    """side of the images of folder:PATH: 16, 32 or 64 (default 32); the central square, resized"""
    first_seed: int = 0
    """the first seed; the others follow"""
    threads: int = 1
    """CPU threads of torch in a worker; part of the settings because sums are ordered by it"""
    stacked: Stacked = "auto"
    """train attackers of one architecture, over seeds and views, as one network: on, off, or auto (on a GPU);
    part of the settings because sums are ordered by it"""


@dataclass(frozen=True, kw_only=True)
class VictimPaths:
    """The paths of the user's own classifier. Its content identifies it, see ``victim_digest``."""

    victim: str | None = None
    """your own classifier, images in [0, 1] to logits: module:factory (in the current folder or an installed
    package) or file.pt2 (torch.export). Both run code: use only files that you trust. Default: one is
    trained"""
    victim_state: str | None = None
    """weights for --victim module:factory: .safetensors, or a state dict (.pt, loaded with weights_only)"""


@dataclass(frozen=True, kw_only=True)
class VictimOutputs:
    """What the user's own classifier takes and returns. Unlike its path, this affects what is measured."""

    victim_outputs: Literal["logits", "probabilities"] | None = None
    """what --victim returns: probabilities (each vector is divided by its sum), or logits that are not
    checked to be none; default: logits, refused where they look like probabilities"""
    victim_transforms: str | None = None
    """what happens to images before --victim sees them: module:name (transforms of torchvision, or a function
    without arguments that returns them), a name of torchvision's weights (ResNet18_Weights.DEFAULT), or the
    preprocessor_config.json of an image processor. The study keeps the numbers. Default: nothing"""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of the networks and of their training."""

    scale: Literal["quick", "full"] = "quick"
    """sizes of networks and training: quick for CPUs (at most 2,000 training images a side), full for GPUs"""
    limit: int | None = None
    """at most so many training images a side; default: the scale's"""
    victim_steps: int | None = None
    """training steps of victim and evaluators; default: the scale's"""
    victim_augment: Literal["none", "faces"] | None = None
    """how the classifiers' training images are changed at random; default: faces (mirrored, moved, turned,
    brightness) where the classes are people, else none, which also trains as on other images"""
    decoder_steps: int | None = None
    """training steps of inversion models; default: the scale's"""
    decoder_width: int | None = None
    """channels of inversion models before the last block; default: the scale's"""
    decoder_batch: int | None = None
    """images per training step of inversion models; default: the scale's"""
    seeds: int = 3
    """victims, splits and attackers per setting; intervals need at least 2"""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The defenses and attackers of the search, its sampler and its objectives."""

    defenses: Annotated[
        tuple[str, ...],
        _names(f"defense families to search: {', '.join(families())}; or {ALL}"),
    ] = DEFAULT_DEFENSES
    attackers: Annotated[
        tuple[str, ...],
        _names(
            f"attackers of every setting; the worst case is over these: {', '.join(attackers())}; "
            f"{WHOLE_SUITE} (all but those that only replicate the paper); or {ALL}"
        ),
    ] = DEFAULT_ATTACKERS
    screen: bool = True
    """the attackers in closed form judge every setting first; all attackers then judge those that no setting
    dominates that they have judged, except what leaks beyond the margin. Up to the margin the frontier is the
    same, sooner. --no-screen: all attackers judge all"""
    sampler: Annotated[str, tyro.conf.arg(help=f"how settings are suggested: {', '.join(SAMPLERS)}")] = "tpe"
    objectives: Annotated[
        tuple[str, ...] | None,
        _names(
            f"what the search optimises, two or more of: {', '.join(OBJECTIVES)}. Default: distortion, error "
            "and identification (accuracy if the attacker's classes are others than the victim's)"
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """Defenses and attackers of other packages. Loading them runs their code."""

    plugin: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE [MODULE ...]")] = ()
    """modules with defenses or attackers of your own, or names of installed plug-ins. They run code: use only
    those that you trust; one that only records name is never loaded"""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The study's name and its number of trials."""

    trials: int = 40
    """defense settings to evaluate, besides the anchors (undefended, label-only)"""
    fresh_seeds: int = 0
    """re-evaluate the frontier on so many seeds that the search never used: its selection bias (0: do not)"""
    name: str | None = None
    """the study's name; default <dataset>-<auxiliary>, numbered if that exists"""
    resume: bool = False
    """continue a study up to --trials, with its settings: --resume NAME, or --resume for the latest of the
    default name. Settings that are given must be those of the study; nothing is lost or repeated"""
    dry_run: bool = False
    """print what would run and about how long it would take, and start nothing"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The data folder and the storage. A study may be moved to another place."""

    data_root: Path | None = None
    """data folder in torchvision's layout (or .gz); default $MIPOISON_DATA or ~/.cache/mipoison/data"""
    storage: str = "results"
    """where everything is kept: a folder, or s3://bucket/prefix"""
