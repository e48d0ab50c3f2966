"""The settings of a scene: data set, victim, and how long models are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mipoison.config import Config, Plain, choose, digest
from mipoison.data.datasets import DATASETS, check_image_size, parse_name
from mipoison.data.sources import AUXILIARY
from mipoison.victims.source import OUTPUTS, check_source, is_statement, short_name

if TYPE_CHECKING:
    from mipoison.models.classifier import ClassifierConfig

_MAY_BE_ZERO = ("victim_augment", "victim_average")
_OF_OWN = ("victim_state", "victim_digest", "victim_outputs", "victim_transforms")
"""Settings that apply only where the victim is the user's own classifier."""


@dataclass(frozen=True, kw_only=True)
class SceneConfig(Config):
    """Data set, victim, and how large and how long trained its models are.

    Attributes:
        dataset: a name of DATASETS (``faces:PATH`` and ``facescrub:PATH`` carry a folder).
        auxiliary: ``same``: the attacker has other images of the private classes. ``disjoint``: it has images
            of other classes.
        seed: seeds the split, the training of all models, and all random numbers.
        limit: at most so many training images, private and attacker's each; None: all.
        image_size: side of the images of ``folder:PATH``; None: the data set's own.
        victim, victim_state: the user's own classifier, see :mod:`mipoison.victims.own`; None: a victim is
            trained. With an own classifier the seed does not change the victim, and with ``same`` all classes
            are private.
        victim_digest: the own classifier's digest. Another classifier is refused.
        victim_outputs: what the own classifier returns, ``logits`` or ``probabilities``; None: logits, and an
            error if they look like probabilities.
        victim_transforms: the own classifier's preprocessing as a line of JSON, see
            :func:`mipoison.victims.named_transforms.statement`; None: it takes the images as they are.
        victim_width, victim_hidden, victim_steps, victim_batch: size and training of the victim, and of the
            evaluators, which have another architecture.
        victim_lr: their peak learning rate.
        victim_augment: how their training images are changed at random, ``faces`` or ``none``, see
            :mod:`mipoison.models.augmentation`.
        evaluator_architecture: ``evaluator`` or ``place-evaluator``, see
            :class:`mipoison.models.classifier.ClassifierConfig`.
        victim_average: the share of their last steps whose weights are averaged, in [0, 0.5].
        decoder_width, decoder_steps, decoder_batch, decoder_lr: size and training of all inversion models.
        threads: CPU threads of torch. It is a setting because sums depend on it in the last bits.
    """

    BEFORE: ClassVar[Mapping[str, Plain | None]] = {
        "victim_outputs": None,
        "victim_transforms": None,
        "victim_lr": 1e-3,
        "victim_augment": "none",
        "victim_average": 0.0,
        "evaluator_architecture": "evaluator",
    }

    dataset: str = "digits"
    auxiliary: Literal["same", "disjoint"] = "same"
    seed: int = 0
    limit: int | None = None
    image_size: int | None = None
    victim: str | None = None
    victim_state: str | None = None
    victim_digest: str | None = None
    victim_outputs: str | None = None
    victim_transforms: str | None = None
    victim_width: int = 16
    victim_hidden: int = 64
    victim_steps: int = 200
    victim_batch: int = 64
    victim_lr: float = 1e-3
    victim_augment: Literal["none", "faces"] = "none"
    victim_average: float = 0.0
    evaluator_architecture: Literal["evaluator", "place-evaluator"] = "evaluator"
    decoder_width: int = 16
    decoder_steps: int = 400
    decoder_batch: int = 32
    decoder_lr: float = 5e-3
    threads: int = 1

    def validate(self) -> None:
        dataset, _ = parse_name(self.dataset)
        check_image_size(self.dataset, self.image_size)
        self.one_of("auxiliary", AUXILIARY)
        self.require("seed", self.seed >= 0, "at least 0")
        self.require("limit", self.limit is None or self.limit >= 10, "at least 10 images")
        for name in self.field_kinds():
            if name.startswith(("victim_", "decoder_", "threads")) and name not in (*_OF_OWN, *_MAY_BE_ZERO):
                self.require(name, getattr(self, name) > 0, "above 0")
        self.require("victim_average", 0 <= self.victim_average <= 0.5, "in [0, 0.5]")
        if self.victim is None:
            for field in _OF_OWN:
                self.require(field, getattr(self, field) is None, "left out where there is no own victim")
            return
        check_source(self.victim, self.victim_state)
        if self.victim_outputs is not None:
            self.one_of("victim_outputs", OUTPUTS)
        if self.victim_transforms is not None:
            plain = is_statement(self.victim_transforms)
            self.require("victim_transforms", plain, "a statement in JSON (see named_transforms)")
        self.require("victim_digest", bool(self.victim_digest), "the classifier's digest (see load_victim)")
        drawn = DATASETS[dataset].kind == "identities" and self.auxiliary == "disjoint"
        self.require(
            "victim", not drawn, f"None: which identities of {dataset} are private depends on the seed"
        )

    @property
    def victim_name(self) -> str:
        """The victim's name in records: an own classifier's name and digest, or a digest of the settings."""
        if self.victim is None:
            return f"victim-{digest(self.flat())[:12]}"
        stated = f":{self.victim_outputs}" if self.victim_outputs == "probabilities" else ""
        return f"{short_name(self.victim)}@{self.victim_digest}{stated}"

    def classifier(self, architecture: Literal["victim", "evaluator"]) -> ClassifierConfig:
        """Configuration of the victim or of an evaluator."""
        from mipoison.models.classifier import ClassifierConfig

        return ClassifierConfig(
            architecture=self.evaluator_architecture if architecture == "evaluator" else architecture,
            width=self.victim_width,
            hidden=self.victim_hidden,
            steps=self.victim_steps,
            batch=self.victim_batch,
            lr=self.victim_lr,
            augment=self.victim_augment,
            average=self.victim_average,
        )


PATHS = ("dataset", "victim", "victim_state")
"""Settings that may contain a path."""

_SMALL = dict(victim_width=16, victim_hidden=64, victim_steps=200, victim_batch=64)
SCALES: dict[str, dict[int, dict[str, Any]]] = {
    "quick": {
        16: dict(_SMALL, decoder_width=16, decoder_steps=400, decoder_batch=32, decoder_lr=5e-3),
        32: dict(
            _SMALL,
            victim_steps=400,
            decoder_width=16,
            decoder_steps=500,
            decoder_batch=64,
            decoder_lr=5e-3,
            limit=2000,
        ),
        64: dict(
            _SMALL,
            victim_steps=500,
            decoder_width=16,
            decoder_steps=500,
            decoder_batch=64,
            decoder_lr=3e-3,
            limit=1500,
        ),
    },
    "full": {
        size: dict(
            victim_width=64, victim_hidden=256, victim_steps=6000, victim_batch=128,
            decoder_width=width, decoder_steps=20000, decoder_batch=128, decoder_lr=1e-3,
        )
        for size, width in ((16, 64), (32, 128), (64, 128))
    },
}  # fmt: skip
"""Scale (``quick`` for a CPU, ``full`` for a GPU) -> side of the images -> fields of SceneConfig."""


_PEOPLE = dict(victim_augment="faces", victim_average=0.2, evaluator_architecture="place-evaluator")
OF_PEOPLE: dict[str, dict[str, Any]] = {
    "quick": dict(_PEOPLE, victim_lr=2e-3, victim_steps=600, victim_batch=32),
    "full": _PEOPLE,
}
"""Scale -> fields of SceneConfig that differ where the classes are people: they have few images each, which a
classifier learns by heart unless they are changed at random."""


def scaled(dataset: str, scale: str, **changes: Any) -> SceneConfig:
    """A scene's settings at a named scale. ``changes`` that are not None replace the scale's values.

    With ``victim_augment="none"`` faces are trained as other images are.
    """
    choose("scale", scale, SCALES)
    size = check_image_size(dataset, changes.get("image_size"))
    values = {**SCALES[scale][size]}
    people = DATASETS[parse_name(dataset)[0]].kind == "identities"
    if people and changes.get("victim_augment") != "none" and changes.get("victim") is None:
        values |= OF_PEOPLE[scale]
    values |= {k: v for k, v in changes.items() if v is not None}
    return SceneConfig(dataset=dataset, **values)
