"""The scene of an episode: split, victim, evaluators, substitutes; trained once, then read from the store.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.artifacts import ArtifactStore
from mipoison.config import Config, choose
from mipoison.datasets import DATASETS, parse_name
from mipoison.models.classifier import ClassifierConfig
from mipoison.models.inversion import InversionNet, SubstituteConfig
from mipoison.protocols import DefenderView
from mipoison.randomness import generator
from mipoison.service import DefendedService
from mipoison.splits import AUXILIARY, Part, Split, halves, make_split
from mipoison.training import RECONSTRUCTION_LOSSES, Loss, seeded, train


@dataclass(frozen=True, kw_only=True)
class SceneConfig(Config):
    """What is attacked, on which data, trained how much.

    Attributes:
        dataset: a name of DATASETS (``faces:PATH`` and ``facescrub:PATH`` carry a folder).
        auxiliary: ``same`` (the attacker holds other images of the private classes), ``disjoint`` (other
            classes).
        seed: of the split, the victim, the evaluators and everything random.
        limit: at most so many training images a side; None takes all.
        victim_width, victim_hidden, victim_steps, victim_batch: the victim (and, but for the architecture,
            the evaluators).
        decoder_width, decoder_steps, decoder_batch, decoder_lr: all inversion models.
        threads: CPU threads of torch. Sums are ordered by it, so it belongs to the settings.
    """

    dataset: str = "digits"
    auxiliary: Literal["same", "disjoint"] = "same"
    seed: int = 0
    limit: int | None = None
    victim_width: int = 16
    victim_hidden: int = 64
    victim_steps: int = 200
    victim_batch: int = 64
    decoder_width: int = 16
    decoder_steps: int = 400
    decoder_batch: int = 32
    decoder_lr: float = 5e-3
    threads: int = 1

    def validate(self) -> None:
        parse_name(self.dataset)
        self.one_of("auxiliary", AUXILIARY)
        self.require("seed", self.seed >= 0, "at least 0")
        self.require("limit", self.limit is None or self.limit >= 10, "at least 10 images")
        for name in self.field_kinds():
            if name.startswith(("victim_", "decoder_", "threads")):
                self.require(name, getattr(self, name) > 0, "above 0")

    def classifier(self, architecture: Literal["victim", "evaluator"]) -> ClassifierConfig:
        """Configuration of the victim or of an evaluator."""
        return ClassifierConfig(
            architecture=architecture,
            width=self.victim_width,
            hidden=self.victim_hidden,
            steps=self.victim_steps,
            batch=self.victim_batch,
        )


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
"""``quick`` for a CPU, ``full`` for a GPU, by image size; a scale's numbers are fields of SceneConfig."""


def scaled(dataset: str, scale: str, **changes: Any) -> SceneConfig:
    """A scene at a named scale; ``changes`` that are not None replace the scale's values."""
    choose("scale", scale, SCALES)
    size = DATASETS[parse_name(dataset)[0]].image_shape[1]
    values = {**SCALES[scale][size], **{k: v for k, v in changes.items() if v is not None}}
    return SceneConfig(dataset=dataset, **values)


@dataclass
class Scene:
    """A prepared scene: everything that the defender and the judge have, nothing of an attacker.

    Attributes:
        clean: part name -> clean vectors (N, K) of the victim.
        evaluator: judges reconstructions over the private classes (0..m-1). open_evaluator: over private and
            attack classes. Both are of another architecture and seed than the victim and never see a
            reconstruction.
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
        """Key of an artifact of this scene: settings, the split's fingerprint and more."""
        return _spec(self.config, self.split, self.device, **more)

    def substitute(self, config: SubstituteConfig) -> InversionNet:
        """The defender's inversion model, trained on clean pairs of its share of D_inv; frozen, eval mode."""
        architecture = config.architecture(self.config.decoder_width)

        def make() -> dict[str, Tensor]:
            c, x = self.substitute_data(config)
            rng = generator(self.config.seed, "substitute", config.digest())
            with seeded(rng, self.device):
                fresh = architecture.make(self.split.image_shape, self.split.n_classes)
            loss = RECONSTRUCTION_LOSSES[config.loss]
            fit_decoder(fresh.to(self.device), c.to(self.device), x.to(self.device), loss, self.config, rng)
            return fresh.state_dict()

        with torch.device("meta"):  # no initialisation: nothing drawn from the global generator
            network = architecture.make(self.split.image_shape, self.split.n_classes)
        state = self.store.tensors("substitute", self.spec(substitute=config.flat()), make)
        network.load_state_dict(state, assign=True)
        return network.requires_grad_(False).eval().to(self.device)

    def substitute_data(self, config: SubstituteConfig) -> tuple[Tensor, Tensor]:
        """Clean vectors and images that a substitute is trained on."""
        part = self.data_halves[config.data]
        if config.data == "all":
            return self.clean["attack_train"], part.x_NCHW
        return clean_vectors(self.victim, part.x_NCHW, self.split.n_classes, self.device), part.x_NCHW

    def view(self) -> DefenderView:
        """What a defense may be fitted on."""
        return DefenderView(
            x_private_NCHW=self.split.private_train.x_NCHW,
            c_private_NK=self.clean["private_train"],
            y_private_N=self.split.private_train.y_N,
            substitute=self.substitute,
            substitute_data=self.substitute_data,
            n_classes=self.split.n_classes,
            device=self.device,
            trained=lambda kind, settings, make: self.store.tensors(
                kind, self.spec(settings=dict(settings)), make
            ),
            victim=self.config.classifier("victim"),
        )


def fit_decoder(
    model: nn.Module, c_NK: Tensor, x_NCHW: Tensor, loss: Loss, config: SceneConfig, rng: torch.Generator
) -> nn.Module:
    """Train an inversion model as Yang et al. do (Adam, betas 0.5 and 0.999, amsgrad), at the scene's
    scale."""
    return train(
        model, c_NK, x_NCHW, loss,
        steps=config.decoder_steps, batch=config.decoder_batch, lr=config.decoder_lr,
        betas=(0.5, 0.999), amsgrad=True, rng=rng,
    )  # fmt: skip


def clean_vectors(victim: nn.Module, x_NCHW: Tensor, n_classes: int, device: torch.device) -> Tensor:
    """Clean vectors (N, K) on the CPU, in the service's own chunks."""
    from mipoison.defenses.none import NoDefense

    return DefendedService(victim, NoDefense(), secret=b"", n_classes=n_classes, device=device).clean(x_NCHW)


def _spec(config: SceneConfig, split: Split, device: torch.device, **more: Any) -> dict[str, Any]:
    settings = config.flat()
    # The path of a user's folder does not matter, its content does: the fingerprint stands for the data.
    settings.pop("dataset")
    return {
        "scene": settings,
        "split": split.fingerprint,
        "device": device.type,
        "torch": torch.__version__,
        **more,
    }


def _classifier(
    name: str, config: ClassifierConfig, scene: SceneConfig, split: Split, store: ArtifactStore,
    device: torch.device, x_NCHW: Tensor, y_N: Tensor, n_classes: int,
) -> nn.Module:  # fmt: skip
    with torch.device("meta"):
        model = config.make(split.image_shape, n_classes)

    def make() -> dict[str, Tensor]:
        rng = generator(scene.seed, name)
        with seeded(rng, device):
            fresh = config.make(split.image_shape, n_classes).to(device)
        train(
            fresh, x_NCHW.to(device), y_N.to(device), F.cross_entropy,
            steps=config.steps, batch=config.batch, lr=config.lr, rng=rng,
        )  # fmt: skip
        return fresh.state_dict()

    state = store.tensors(name, _spec(scene, split, device, classifier=config.flat()), make)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval().to(device)


def prepare(
    config: SceneConfig,
    store: ArtifactStore,
    *,
    data_root: Path | str | None = None,
    device: torch.device | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Scene:
    """Load the data and train, or load from the store, the victim and both evaluators.

    Raises:
        DataError, ConfigError: data or settings that cannot be used.
    """
    device = device or default_device()
    torch.set_num_threads(config.threads)
    progress(f"{config.dataset}, seed {config.seed}: reading data")
    split = make_split(
        config.dataset, auxiliary=config.auxiliary, seed=config.seed, data_root=data_root, limit=config.limit
    )
    private, attack = split.private_train, split.attack_train
    progress(f"{config.dataset}, seed {config.seed}: victim")
    victim = _classifier(
        "victim",
        config.classifier("victim"),
        config,
        split,
        store,
        device,
        private.x_NCHW,
        private.y_N,
        split.n_classes,
    )
    progress(f"{config.dataset}, seed {config.seed}: evaluators")
    judge = config.classifier("evaluator")
    evaluator = _classifier(
        "evaluator", judge, config, split, store, device, private.x_NCHW, private.y_N, split.n_classes
    )
    open_evaluator = _classifier(
        "open-evaluator", judge, config, split, store, device,
        torch.cat([private.x_NCHW, attack.x_NCHW]), torch.cat([private.y_N, attack.y_N]),
        split.n_open_classes,
    )  # fmt: skip
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
    from mipoison.storage import Storage

    return prepare(config, ArtifactStore(Storage(root)), data_root=data_root, device=torch.device(device))


def scene_for(config: SceneConfig, root: str, data_root: str | None, device: str | None = None) -> Scene:
    """A prepared scene, remembered by this process (a worker serves many trials of the same scenes)."""
    torch.set_num_threads(config.threads)
    return _remembered(config, root, data_root, device or default_device().type)
