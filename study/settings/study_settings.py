"""The settings of a study, which the command line sets; checked before any work starts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mipoison.attacks import ATTACKS, LABEL_ATTACKER, SUITE
from mipoison.config import Config, ConfigError, choose
from mipoison.data.datasets import dataset_choices, parse_name
from mipoison.defenses import ANCHORS, DEFENSES, retraining
from mipoison.scene import SCALES, SceneConfig, scaled
from mipoison.victims.own import check_source, load_victim, repeatable_digest
from study.records.constraints import Constraints, UtilityBounds
from study.records.store import check_name
from study.runtime.plain import visible_line
from study.search.objectives import OBJECTIVES, chosen
from study.search.sampler import SAMPLERS
from study.search.space import searchable
from study.settings.display import Copies, Display
from study.settings.names import ALL, listed, split_names
from study.settings.resources import Resources, at_least
from study.tracking.mlflow import check_address
from study.trial.joint_training import STACKED

DEFAULT_ATTACKERS = (
    LABEL_ATTACKER, "passive", "rounding", "label-only", "ridge", "mlp", "kernel", "trees", "mixtures"
)  # fmt: skip
"""The paper's attacker, two that distrust small scores, and the strongest for their cost: ``kernel``
reached the largest excess in each of nine settings (digits, three seeds, scale quick; LPA by descent), in
less time than one decoder, and ``mixtures`` a larger one where a defense perturbs vectors.
``suite`` is the whole one."""
DEFAULT_DEFENSES = ("rounding", "noise", "codebook", "lpa", "lfp")
"""The paper's two defenses, two controls that they have to beat, and a release made to be certified."""
WHOLE_SUITE = "suite"


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
    stacked: Literal["auto", "on", "off"] = "auto"
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
    """What the user's own classifier returns. Unlike its path, this affects what is measured."""

    victim_outputs: Literal["logits", "probabilities"] | None = None
    """what --victim returns: probabilities (each vector is divided by its sum), or logits that are not
    checked to be none; default: logits, refused where they look like probabilities"""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of the networks and of their training."""

    scale: Literal["quick", "full"] = "quick"
    """sizes of networks and training: quick for CPUs (at most 2,000 training images a side), full for GPUs"""
    limit: int | None = None
    """at most so many training images a side; default: the scale's"""
    victim_steps: int | None = None
    """training steps of victim and evaluators; default: the scale's"""
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
        _names(f"defense families to search: {', '.join(searchable())}; or {ALL}"),
    ] = DEFAULT_DEFENSES
    attackers: Annotated[
        tuple[str, ...],
        _names(
            f"attackers of every setting; the worst case is over these: {', '.join(ATTACKS)}; "
            f"{WHOLE_SUITE} (all but those that only replicate the paper); or {ALL}"
        ),
    ] = DEFAULT_ATTACKERS
    sampler: Annotated[str, tyro.conf.arg(help=f"how settings are suggested: {', '.join(SAMPLERS)}")] = "tpe"
    objectives: Annotated[
        tuple[str, ...] | None,
        _names(
            f"what the search optimises, two or more of: {', '.join(OBJECTIVES)}. Default: distortion, error "
            "and identification (accuracy if the attacker's classes are others than the victim's)"
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The study's name and its number of trials."""

    trials: int = 12
    """defense settings to evaluate, besides the anchors (undefended, label-only)"""
    fresh_seeds: int = 0
    """re-evaluate the frontier on so many seeds that the search never used: its selection bias (0: do not)"""
    name: str | None = None
    """the study's name; default <dataset>-<auxiliary>, numbered if that exists"""
    resume: bool = False
    """continue the named (or latest of the default name) study up to --trials; loses and repeats nothing"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The data folder and the storage. A study may be moved to another place."""

    data_root: Path | None = None
    """data folder in torchvision's layout (or .gz); default $MIPOISON_DATA or ~/.cache/mipoison/data"""
    storage: str = "results"
    """where everything is kept: a folder, or s3://bucket/prefix"""


@dataclass(frozen=True, kw_only=True)
class Arguments(
    Copies,
    Display,
    Resources,
    Place,
    Extent,
    UtilityBounds,
    SearchSettings,
    Sizes,
    VictimOutputs,
    VictimPaths,
    SceneSettings,
):  # --help shows the last group first
    """Which defense, with which knobs, protects best at each price in utility, when the attacker adapts?

    Searches the defenses' knobs with Ray Tune and Optuna, attacks every setting with a suite of inversion
    attackers on several seeds, and leaves episodes (Parquet), the Pareto frontier, pictures and tables under
    <storage>/<name>.
    """

    def checked(self) -> StudySettings:
        """The checked settings; raises ConfigError or DataError for an invalid one.

        The attacker that knows the label alone is of every suite, also where it is not named.
        """
        settings = StudySettings(**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})
        if LABEL_ATTACKER in settings.attackers:
            return settings
        return dataclasses.replace(settings, attackers=(LABEL_ATTACKER, *settings.attackers))


@dataclass(frozen=True, kw_only=True)
class StudySettings(Arguments):
    """The checked settings of a study.

    The command line is parsed into :class:`Arguments` first, so that an invalid value gives one line of error
    instead of tyro's message.

    Raises:
        ConfigError, DataError: a setting is invalid; the message has its bound or the valid names.
    """

    def __post_init__(self) -> None:
        self.check_resources()
        at_least("trials", self.trials, 0)
        at_least("seeds", self.seeds, 1)
        at_least("first_seed", self.first_seed, 0)
        at_least("fresh_seeds", self.fresh_seeds, 0)
        at_least("limit", self.limit, 10)
        for name in ("threads", "victim_steps", "decoder_steps", "decoder_width", "decoder_batch"):
            at_least(name, getattr(self, name), 1)
        Constraints.of(self)
        if not 0 <= self.margin < 1:
            raise ConfigError(f"margin = {self.margin}: must be at least 0 and below 1 (share)")
        choose("stacked", self.stacked, STACKED)
        choose("sampler", self.sampler, SAMPLERS)
        choose("scale", self.scale, SCALES)
        parse_name(self.dataset)
        if self.name is not None:
            check_name(self.name)
        families = searchable()
        if self.victim is not None:
            given = ",".join(self.defenses).split(",")
            if retrained := [name for name in retraining() if name in given]:
                raise ConfigError(
                    f"defense {', '.join(retrained)} retrains the victim: not possible with --victim; "
                    f"choose from: {', '.join(n for n in families if n not in retrained)}, {ALL}"
                )
            families = [name for name in families if name not in retraining()]
            check_source(self.victim, self.victim_state)
        for flag, value in (("--victim-state", self.victim_state), ("--victim-outputs", self.victim_outputs)):
            if value is not None and self.victim is None:
                raise ConfigError(f"{flag} {value!r} without --victim module:factory")
        object.__setattr__(self, "defenses", listed("defense", self.defenses, families, ignored=ANCHORS))
        object.__setattr__(
            self, "attackers", listed("attacker", self.attackers, ATTACKS, groups={WHOLE_SUITE: SUITE})
        )
        if self.objectives is not None:
            object.__setattr__(self, "objectives", tuple(chosen(split_names(self.objectives))))
        if self.mlflow is not None:
            check_address(self.mlflow)
        self.scenes()

    @property
    def constraints(self) -> Constraints:
        """What a feasible setting may cost in utility."""
        return Constraints.of(self)

    @functools.cached_property
    def victim_digest(self) -> str | None:
        """The digest of the user's own classifier; None if the study trains one."""
        return None if self.victim is None else repeatable_digest(self.victim, self.victim_state)

    def scenes(self) -> tuple[SceneConfig, ...]:
        """The scenes, one per seed."""
        return tuple(
            scaled(
                self.dataset,
                self.scale,
                auxiliary=self.auxiliary,
                seed=seed,
                limit=self.limit,
                image_size=self.image_size,
                victim=self.victim,
                victim_state=self.victim_state,
                victim_digest=self.victim_digest,
                victim_outputs=self.victim_outputs,
                threads=self.threads,
                victim_steps=self.victim_steps,
                decoder_steps=self.decoder_steps,
                decoder_width=self.decoder_width,
                decoder_batch=self.decoder_batch,
            )
            for seed in range(self.first_seed, self.first_seed + self.seeds)
        )

    def identity(self, *groups: type) -> dict[str, Any]:
        """The settings that a resumed study must share with the stored one, as JSON values.

        Args:
            groups: the groups of settings to include; all of :data:`IDENTITY` if none is given.
        """
        values = {name: getattr(self, name) for name in _defaults(groups or IDENTITY)}
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
        return plain | {"victim_digest": self.victim_digest}

    def changes(self, stored: Mapping[str, Any], *groups: type) -> list[str]:
        """``name: stored -> now`` for each setting that differs from a stored study's.

        A setting that an earlier version did not store counts as having had its default.
        """
        return differences(_defaults(groups or IDENTITY) | dict(stored), self.identity(*groups))

    def continuing(self, stored: Mapping[str, Any]) -> StudySettings:
        """These settings, for a resumed study with the stored ones.

        The attacker that knows the label alone is of the suite if it was when the study was begun. If an
        earlier version computed another digest for the same classifier and the study stores that one, it is
        kept, so that all records of the study have the same ``victim_digest``.
        """
        attackers, mine = stored.get("attackers"), [*self.attackers]
        if isinstance(attackers, list) and (
            mine == [LABEL_ATTACKER, *attackers] or attackers == [LABEL_ATTACKER, *mine]
        ):
            return dataclasses.replace(self, attackers=tuple(attackers)).continuing(stored)
        earlier = stored.get("victim_digest")
        if self.victim is None or earlier in (None, self.victim_digest):
            return self
        if load_victim(self.victim, self.victim_state).earlier != earlier:
            return self
        same = dataclasses.replace(self)
        same.__dict__["victim_digest"] = earlier  # sets the cached property
        return same

    def default_name(self) -> str:
        """``<dataset>-<auxiliary>``; of a user's folder only the kind, without its path."""
        return f"{parse_name(self.dataset)[0]}-{self.auxiliary}"


SCENES = (SceneSettings, VictimOutputs, Sizes)
"""The groups of settings that determine the scenes."""
IDENTITY = (*SCENES, SearchSettings, UtilityBounds)
"""The groups of settings that a resumed study must share with the stored one; all others may change."""


def _defaults(groups: tuple[type, ...]) -> dict[str, Any]:
    """Name -> default (as a JSON value) of the settings in some groups."""
    found = {f.name: f.default for group in groups for f in dataclasses.fields(group)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``name: stored -> now`` for each setting that differs.

    The path of a user's images may differ, since the images may have been moved. Their content is compared
    when they are read, see :func:`study.session.opening.open_study`.
    """
    stored, now = ({**values, "dataset": _source(values.get("dataset"))} for values in (stored, now))
    return [
        f"{visible_line(k, 40)}: {visible_line(repr(stored.get(k)), 400)} -> {now.get(k)!r}"
        for k in sorted({*stored, *now})
        if stored.get(k) != now.get(k)
    ]


def _source(dataset: Any) -> Any:
    """The name of a data set without its path."""
    return dataset.partition(":")[0] if isinstance(dataset, str) else dataset


def config_of(defense: str, knobs: dict[str, Any]) -> Config:
    """A defense's configuration from stored knobs."""
    return DEFENSES[defense].recorded(knobs)
