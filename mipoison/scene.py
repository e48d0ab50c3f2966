"""The scene of an episode: data split, victim and evaluators, trained once and then loaded from the store.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.data.splits import Part, Split, halves, make_split
from mipoison.defenses.pipeline import victim_of
from mipoison.defenses.substitutes import Substitutes, fit_decoder
from mipoison.metrics.leakage import share_recognised
from mipoison.models.classifier import ClassifierConfig, confidence_vectors
from mipoison.models.inversion import InversionNet, SubstituteConfig
from mipoison.process import own_context
from mipoison.protocols import DefenderView
from mipoison.randomness import generator
from mipoison.scene_config import PATHS, SCALES, SceneConfig, scaled
from mipoison.service import clean_vectors
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from mipoison.training import seeded, train
from mipoison.victims.check import check_victim
from mipoison.victims.fingerprints import is_exported, refuse_other
from mipoison.victims.named_transforms import stated
from mipoison.victims.own import LoadedVictim, load_victim

__all__ = [
    "PATHS",
    "SCALES",
    "Scene",
    "SceneConfig",
    "clean_vectors",
    "default_device",
    "fit_decoder",
    "own_victim",
    "prepare",
    "scaled",
    "scene_for",
    "split_of",
]

TEST_SEEN = (
    "a held-out part of the private images, which this classifier may have been trained on "
    "(folder:PATH takes images that it has not seen as test/)"
)
"""What the test images are where :func:`test_may_be_seen`, in words."""


@dataclass
class Scene:
    """A prepared scene: what the defender has, and the classifiers that judge reconstructions.

    Attributes:
        clean: part name -> clean vectors (N, K) of the victim.
        evaluator: classifies reconstructions into the private classes (0..m-1).
        open_evaluator: classifies them into private and attack classes. Both evaluators have another
            architecture and seed than the victim, and are trained on real images only.
        data_halves: ``D1`` and ``D2``, halves of the attacker's training images, and ``all`` of them.
    """

    config: SceneConfig
    split: Split
    device: torch.device
    store: ArtifactStore
    victim: nn.Module
    evaluator: nn.Module
    open_evaluator: nn.Module
    clean: dict[str, Tensor]
    data_halves: dict[str, Part]

    def spec(self, **more: Any) -> dict[str, Any]:
        """What an artifact of this scene depends on: settings, the split's fingerprint, and ``more``."""
        return _spec(self.config, self.split, self.device, **more)

    def trained(
        self,
        kind: str,
        settings: Mapping[str, Any],
        make: Callable[[], dict[str, Tensor]],
        like: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """A part trained for this scene, or loaded from its store: a :class:`mipoison.protocols.Trained`."""
        return self.store.tensors(kind, self.spec(settings=dict(settings)), make, like)

    def substitute(self, config: SubstituteConfig) -> InversionNet:
        """A substitute of the defender, see :class:`mipoison.defenses.substitutes.Substitutes`."""
        return self.substitutes().network(config)

    def substitutes(self) -> Substitutes:
        """Trains the defender's substitutes, once for this scene, or loads them from the store."""
        return Substitutes(
            clean=lambda x: clean_vectors(self.victim, x, self.split.n_classes, self.device),
            shares={name: part.x_NCHW for name, part in self.data_halves.items()},
            c_all_NK=self.clean["attack_train"],
            sizes=lambda: self.config,
            seed=self.config.seed,
            device=self.device,
            trained=self.trained,
        )

    @property
    def test_may_be_seen(self) -> bool:
        """Whether the victim may have been trained on the private test images."""
        return test_may_be_seen(self.config, self.split)

    def recognised(self, model: nn.Module, x_NCHW: Tensor, y_N: Tensor) -> float:
        """Share of the images whose label one of the scene's classifiers recognises."""
        c_NK = [confidence_vectors(model, x.to(self.device)).cpu() for x in x_NCHW.split(512)]
        return share_recognised(torch.cat(c_NK), y_N)

    @functools.cached_property
    def evaluator_accuracy(self) -> float:
        """Share of the private test images that the evaluator recognises: the same in every episode."""
        return self.recognised(self.evaluator, self.split.private_test.x_NCHW, self.split.private_test.y_N)

    def view(self) -> DefenderView:
        """What a defense may be fitted on."""
        substitutes = self.substitutes()
        return DefenderView(
            x_private_NCHW=self.split.private_train.x_NCHW,
            c_private_NK=self.clean["private_train"],
            y_private_N=self.split.private_train.y_N,
            substitute=substitutes.network,
            substitute_data=substitutes.data,
            n_classes=self.split.n_classes,
            device=self.device,
            trained=self.trained,
            victim=self.config.classifier("victim"),
            ask=victim_of(self.victim, self.split.n_classes, self.device),
        )


def _spec(config: SceneConfig, split: Split, device: torch.device, **more: Any) -> dict[str, Any]:
    settings = config.flat()
    # Artifacts depend on the content of a user's files, not on their paths. The split's fingerprint and the
    # victim's digest stand for the content.
    for name in PATHS:
        settings.pop(name)
    return {
        "scene": settings,
        "split": split.fingerprint,
        "device": device.type,
        "torch": torch.__version__,
        **more,
    }


@dataclass(frozen=True, kw_only=True)
class _Classifiers:
    """Trains the classifiers of one scene, or loads them from its store."""

    scene: SceneConfig
    split: Split
    store: ArtifactStore
    device: torch.device

    def trained(self, name: str, config: ClassifierConfig, images: Part, n_classes: int) -> nn.Module:
        """A frozen classifier on the device. Its name is its kind in the store, and seeds its training."""
        with torch.device("meta"):
            model = config.make(self.split.image_shape, n_classes)

        def make() -> dict[str, Tensor]:
            rng = generator(self.scene.seed, name)
            with seeded(rng, self.device):
                fresh = config.make(self.split.image_shape, n_classes).to(self.device)
            train(
                fresh, images.x_NCHW.to(self.device), images.y_N.to(self.device), F.cross_entropy,
                rng=rng, **config.training(),
            )  # fmt: skip
            return fresh.state_dict()

        spec = _spec(self.scene, self.split, self.device, classifier=config.flat())
        state = self.store.tensors(name, spec, make, model.state_dict())
        model.load_state_dict(state, assign=True)
        return model.requires_grad_(False).eval().to(self.device)


def split_of(config: SceneConfig, data_root: Path | str | None = None, *, download: bool = True) -> Split:
    """The scene's four-way split.

    Args:
        download: whether the network may be used.

    Raises:
        DataError: data that cannot be used.
    """
    return make_split(
        config.dataset,
        auxiliary=config.auxiliary,
        seed=config.seed,
        data_root=data_root,
        limit=config.limit,
        download=download,
        image_size=config.image_size,
        all_private=config.victim is not None and config.auxiliary == "same",
    )


def test_may_be_seen(config: SceneConfig, split: Split) -> bool:
    """Whether the victim may have been trained on the private test images.

    The user's own classifier was trained by the user, who may have taken all images for it, unless the data
    say which images are for testing.
    """
    return config.victim is not None and not split.test_stated


def own_victim(config: SceneConfig, split: Split, device: torch.device) -> LoadedVictim:
    """The user's classifier on the device, after checking its digest and its answers to the private images.

    Raises:
        ConfigError: the classifier has another digest than the settings say, or does not fit the data.
    """
    assert config.victim is not None
    refuse_other(config.victim, config.victim_digest)
    victim = load_victim(
        config.victim,
        config.victim_state,
        outputs=config.victim_outputs,
        transforms=None if config.victim_transforms is None else stated(config.victim_transforms),
    )
    if config.victim_digest not in (victim.digest, victim.earlier):
        forgot = (
            "" if config.victim_state or is_exported(config.victim) else "; did you forget --victim-state?"
        )
        raise ConfigError(
            f"victim {victim.name} is not the study's: digest {victim.digest}, expected "
            f"{config.victim_digest}; weights or code have changed, start a study of its own{forgot}"
        )
    victim.to(device)
    check_victim(victim.asked, split.private_train.x_NCHW, split.private_train.y_N, split.n_classes)
    return victim


@own_context()
def prepare(
    config: SceneConfig | str,
    store: ArtifactStore | Storage | str | Path = "results",
    *,
    data_root: Path | str | None = None,
    device: torch.device | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Scene:
    """Load the data, and train the victim and both evaluators or load them from the store.

    Args:
        config: the scene's settings; or the name of a data set, which is prepared at the scale ``quick``.
        store: where trained parts are kept: a store, a folder or ``s3://bucket/prefix``.
        data_root: folder of the data sets; default: see :func:`mipoison.data.datasets.default_data_root`.
        device: where to compute; default: the GPU if there is one.
        progress: called with a line of text before each step.

    Raises:
        DataError, ConfigError: data or settings that cannot be used.
    """
    if isinstance(config, str):
        config = scaled(config, "quick")
    if not isinstance(store, ArtifactStore):
        store = ArtifactStore(store if isinstance(store, Storage) else Storage(store))
    device = device or default_device()
    torch.set_num_threads(config.threads)
    progress(f"{config.dataset}, seed {config.seed}: reading data")
    split = split_of(config, data_root)
    private, attack = split.private_train, split.attack_train
    progress(f"{config.dataset}, seed {config.seed}: victim")
    classifiers = _Classifiers(scene=config, split=split, store=store, device=device)
    victim: nn.Module
    if config.victim is not None:
        victim = own_victim(config, split, device)
    else:
        victim = classifiers.trained("victim", config.classifier("victim"), private, split.n_classes)
    progress(f"{config.dataset}, seed {config.seed}: evaluators")
    judge = config.classifier("evaluator")
    evaluator = classifiers.trained("evaluator", judge, private, split.n_classes)
    everybody = Part(torch.cat([private.x_NCHW, attack.x_NCHW]), torch.cat([private.y_N, attack.y_N]))
    open_evaluator = classifiers.trained("open-evaluator", judge, everybody, split.n_open_classes)
    clean = {
        part: clean_vectors(victim, getattr(split, part).x_NCHW, split.n_classes, device)
        for part in ("private_train", "private_test", "attack_train")
    }
    first, second = halves(attack, seed=config.seed)
    return Scene(
        config=config, split=split, device=device, store=store, victim=victim, evaluator=evaluator,
        open_evaluator=open_evaluator, clean=clean, data_halves={"D1": first, "D2": second, "all": attack},
    )  # fmt: skip


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.lru_cache(maxsize=8)
def _remembered(config: SceneConfig, root: str, data_root: str | None, device: str) -> Scene:
    return prepare(config, ArtifactStore(Storage(root)), data_root=data_root, device=torch.device(device))


def scene_for(config: SceneConfig, root: str, data_root: str | None, device: str | None = None) -> Scene:
    """A prepared scene. The process keeps the last eight: a worker runs many trials in the same scenes."""
    torch.set_num_threads(config.threads)
    return _remembered(config, root, data_root, device or default_device().type)
