"""The settings of a study, which the command line sets; checked before any work starts.

Importing them, parsing a command line into them and checking it load neither torch nor another large library,
so that ``--help`` and a mistake are answered at once. Only a classifier of the user's own needs torch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, get_args

from mipoison.config import ConfigError, choose
from mipoison.data.datasets import parse_name
from mipoison.scene_config import SCALES, SceneConfig, scaled
from mipoison.victims.source import check_source, check_transforms
from study.records.constraints import Constraints, UtilityBounds
from study.records.names import check_name
from study.runtime.plain import visible_line
from study.search.objectives import chosen
from study.search.samplers import SAMPLERS
from study.settings.display import Afterwards, Copies, Display
from study.settings.groups import DEFAULT_ATTACKERS as DEFAULT_ATTACKERS
from study.settings.groups import DEFAULT_DEFENSES as DEFAULT_DEFENSES
from study.settings.groups import (
    WHOLE_SUITE,
    Extent,
    Place,
    Plugins,
    SceneSettings,
    SearchSettings,
    Sizes,
    Stacked,
    VictimOutputs,
    VictimPaths,
)
from study.settings.names import ALL, listed, split_names
from study.settings.registered import ANCHORS, LABEL_ATTACKER, attackers, families
from study.settings.resources import Resources, at_least

if TYPE_CHECKING:
    from mipoison.config import Config


@dataclass(frozen=True, kw_only=True)
class Arguments(
    Copies,
    Afterwards,
    Display,
    Resources,
    Place,
    Extent,
    UtilityBounds,
    SearchSettings,
    Plugins,
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

    def default_name(self) -> str:
        """``<dataset>-<auxiliary>``; of a user's folder only the kind, without its path."""
        return f"{parse_name(self.dataset)[0]}-{self.auxiliary}"

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
        choose("stacked", self.stacked, get_args(Stacked))
        choose("sampler", self.sampler, SAMPLERS)
        choose("scale", self.scale, SCALES)
        parse_name(self.dataset)
        if self.name is not None:
            check_name(self.name)
        self._load_plugins()
        valid = list(families())
        if self.victim is not None:
            valid = self._for_own_victim(valid)
            check_source(self.victim, self.victim_state)
        for name in ("victim_state", "victim_outputs", "victim_transforms"):
            if (value := getattr(self, name)) is not None and self.victim is None:
                raise ConfigError(f"--{name.replace('_', '-')} {value!r} without --victim module:factory")
        self._state_transforms()
        object.__setattr__(self, "defenses", listed("defense", self.defenses, valid, ignored=ANCHORS))
        groups = _suite() if WHOLE_SUITE in split_names(self.attackers) else {}
        object.__setattr__(self, "attackers", listed("attacker", self.attackers, attackers(), groups=groups))
        if self.objectives is not None:
            object.__setattr__(self, "objectives", tuple(chosen(split_names(self.objectives))))
        if self.mlflow is not None:
            from study.tracking.mlflow import check_address

            check_address(self.mlflow)
        self.scenes()

    def _state_transforms(self) -> None:
        """Replace what ``--victim-transforms`` names by its numbers."""
        if self.victim_transforms is not None:
            check_transforms(self.victim_transforms)
            from mipoison.victims.named_transforms import statement

            object.__setattr__(self, "victim_transforms", statement(self.victim_transforms))

    def _load_plugins(self) -> None:
        """Load what ``--plugin`` names, and installed plug-ins that defenses or attackers name."""
        references = split_names(self.plugin)
        if references:
            from mipoison.plugins import load_plugins

            load_plugins(references)
        for kind, given, known in (
            ("defense", self.defenses, (*families(), *ANCHORS, ALL)),
            ("attacker", self.attackers, (*attackers(), WHOLE_SUITE, ALL)),
        ):
            if others := [name for name in split_names(given) if name not in known]:
                references += _installed(kind, others)
        object.__setattr__(self, "plugin", tuple(dict.fromkeys(references)))

    def _for_own_victim(self, valid: list[str]) -> list[str]:
        """The valid defenses without those that retrain the victim; raises ConfigError if one is chosen."""
        from mipoison.defenses import retraining

        given = ",".join(self.defenses).split(",")
        if retrained := [name for name in retraining() if name in given]:
            raise ConfigError(
                f"defense {', '.join(retrained)} retrains the victim: not possible with --victim; "
                f"choose from: {', '.join(n for n in valid if n not in retrained)}, {ALL}"
            )
        return [name for name in valid if name not in retraining()]

    @property
    def constraints(self) -> Constraints:
        """What a feasible setting may cost in utility."""
        return Constraints.of(self)

    @functools.cached_property
    def victim_digest(self) -> str | None:
        """The digest of the user's own classifier; None if the study trains one."""
        if self.victim is None:
            return None
        from mipoison.victims.named_transforms import stated
        from mipoison.victims.own import repeatable_digest

        transforms = None if self.victim_transforms is None else stated(self.victim_transforms)
        return repeatable_digest(self.victim, self.victim_state, transforms=transforms)

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
                victim_transforms=self.victim_transforms,
                threads=self.threads,
                victim_steps=self.victim_steps,
                victim_augment=self.victim_augment,
                decoder_steps=self.decoder_steps,
                decoder_width=self.decoder_width,
                decoder_batch=self.decoder_batch,
            )
            for seed in range(self.first_seed, self.first_seed + self.seeds)
        )

    def identity(self, *groups: type) -> dict[str, Any]:
        """The settings that a resumed study must share with the stored one, as JSON values.

        How training images are changed is said in any case: its default depends on the data.

        Args:
            groups: the groups of settings to include; all of :data:`IDENTITY` if none is given.
        """
        values = {name: getattr(self, name) for name in _defaults(groups or IDENTITY)}
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
        if "victim_augment" in plain:
            plain["victim_augment"] = self.scenes()[0].victim_augment
        return plain | {"victim_digest": self.victim_digest}

    def changes(self, stored: Mapping[str, Any], *groups: type) -> list[str]:
        """``name: stored -> now`` for each setting that differs from a stored study's.

        A setting that an earlier version did not store counts as having had its default, or its value in
        EARLIER.
        """
        known = _defaults(groups or IDENTITY)
        known |= {name: value for name, value in EARLIER.items() if name in known}
        return differences(known | dict(stored), self.identity(*groups))

    def continuing(self, stored: Mapping[str, Any]) -> StudySettings:
        """These settings, for a resumed study with the stored ones.

        Studies of earlier versions did not screen. The attacker that knows the label alone is of the suite if
        it was when the study was begun. If an earlier version computed another digest for the same classifier
        and the study stores that one, it is kept, so that all records of the study have the same
        ``victim_digest``.
        """
        missing = {name: value for name, value in EARLIER.items() if name not in stored}
        if any(getattr(self, name) != value for name, value in missing.items()):
            return dataclasses.replace(self, **missing).continuing(stored)
        attackers, mine = stored.get("attackers"), [*self.attackers]
        if isinstance(attackers, list) and (
            mine == [LABEL_ATTACKER, *attackers] or attackers == [LABEL_ATTACKER, *mine]
        ):
            return dataclasses.replace(self, attackers=tuple(attackers)).continuing(stored)
        earlier = stored.get("victim_digest")
        if self.victim is None or earlier in (None, self.victim_digest):
            return self
        from mipoison.victims.own import load_victim

        if load_victim(self.victim, self.victim_state).earlier != earlier:
            return self
        same = dataclasses.replace(self)
        same.__dict__["victim_digest"] = earlier  # sets the cached property
        return same


GROUPS: dict[str, tuple[type, ...]] = {
    "data": (SceneSettings,),
    "classifier": (VictimPaths, VictimOutputs),
    "size": (Sizes,),
    "search": (SearchSettings, Plugins),
    "utility": (UtilityBounds,),
    "study": (Extent, Place),
    "machine": (Resources,),
    "output": (Display, Afterwards, Copies),
}
"""Title on ``--help`` -> the groups of settings below it."""
SCENES = (SceneSettings, VictimOutputs, Sizes)
"""The groups of settings that determine the scenes."""
IDENTITY = (*SCENES, SearchSettings, UtilityBounds)
"""The groups of settings that a resumed study must share with the stored one; all others may change."""


EARLIER: dict[str, Any] = {"screen": False, "victim_augment": "none"}
"""Settings that earlier versions did not have, with the value that says what they did."""


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


def _suite() -> dict[str, tuple[str, ...]]:
    """The group of attackers that has a name on the command line."""
    from mipoison.attacks import SUITE

    return {WHOLE_SUITE: SUITE}


def _installed(kind: str, names: list[str]) -> list[str]:
    """Load those of the names that entry points of installed packages have; returns these."""
    group = {"defense": "mipoison.defenses", "attacker": "mipoison.attacks"}[kind]
    found = {entry.name for entry in metadata.entry_points(group=group)}
    if not any(name in found for name in names):
        return []  # a misspelt name is answered without torch
    from mipoison.plugins import load_named

    return load_named(kind, names)


def _source(dataset: Any) -> Any:
    """The name of a data set without its path."""
    return dataset.partition(":")[0] if isinstance(dataset, str) else dataset


def config_of(defense: str, knobs: dict[str, Any]) -> Config:
    """A defense's configuration from stored knobs."""
    from mipoison.defenses import DEFENSES

    return DEFENSES[defense].recorded(knobs)
