"""A fitted post-processing unit: saved as tensors and plain settings, never as code.

A unit is a folder with ``unit.json`` (settings, shapes, digests) and ``unit.safetensors`` (the tensors of the
defense, and a few synthetic images with the classifier's answers, see :mod:`mipoison.serving.probe`).
``unit.json`` contains the SHA-256 of both files, and a unit that was truncated or altered is refused. This
finds damage. It does not prove who wrote the unit: whoever can rewrite the folder can rewrite the digests.

A unit holds no image that was given to it. But substitute and target gradient are computed from the
defender's data, and some defenses keep answers of the classifier to them, so a unit is as confidential as the
classifier. The secret is never saved with it.

Shape suffixes: N queries, K classes, CHW image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import nn

from mipoison.config import Config, ConfigError, choose, digest
from mipoison.defenses import DEFENSES, retraining
from mipoison.process import own_context
from mipoison.protocols import Defense
from mipoison.serving.arguments import device_from
from mipoison.serving.onnx_export import export_onnx, export_program
from mipoison.serving.probe import PREFIX, Probe
from mipoison.serving.wrap import ProtectedClassifier, check_secret, refuse_secret
from mipoison.storage.files import Storage
from mipoison.victims.ask import classifier_of
from mipoison.victims.identity import earlier_state_digest, state_digest
from mipoison.victims.own import LoadedVictim
from mipoison.victims.preprocess import Preprocessing, preprocessing_from

FORMAT, VERSION = "mipoison-unit", 1
SETTINGS, TENSORS = "unit.json", "unit.safetensors"
BESIDE = ("label.json", "victim.safetensors")
"""Files of a unit that others write into its folder: its privacy label, and a victim that a scene trained."""


class UnitError(ConfigError):
    """A saved unit that cannot be used. The message is one line."""


@dataclass(frozen=True, eq=False, repr=False)
class Unit:
    """A fitted defense, and what it was fitted for.

    Attributes:
        name, config: key of DEFENSES and settings. defense: fitted, on ``device``.
        image_shape: (C, H, W) of the queries. n_classes: K of the answers.
        keyed: whether it draws random numbers that a secret keys; then :meth:`wrap` needs a secret.
        victim: digest of the weights of the classifier that it was fitted for.
        running: names of its buffers that change whenever it is asked, which the digest leaves out.
        about: how it was fitted (plain values).
        probe: images and the classifier's answers to them; None for a unit that was saved without.
    """

    name: str
    config: Config
    defense: Defense
    image_shape: tuple[int, int, int]
    n_classes: int
    keyed: bool
    victim: str
    device: torch.device
    running: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    probe: Probe | None = None

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        secret = ", wants a secret" if self.keyed else ""
        return (
            f"Unit({self.config!r}, images {shape}, {self.n_classes} classes, "
            f"fitted for classifier {self.victim}{secret})"
        )

    @own_context()
    def wrap(
        self,
        model: nn.Module,
        *,
        secret: bytes | str | None = None,
        any_model: bool = False,
        outputs: str | None = None,
        transforms: Any = None,
    ) -> ProtectedClassifier:
        """The classifier behind this unit.

        Args:
            model: the classifier that the unit was fitted for; it is not changed.
            secret: 16 to 64 bytes that only the defender knows.
            any_model: accept another classifier than the one that the unit was fitted for.
            outputs: ``logits`` or ``probabilities``; None: as when the unit was fitted.
            transforms: the classifier's preprocessing; None: as when the unit was fitted, which it keeps.

        Raises:
            ConfigError: another classifier (by its weights or by its answers to the probe images), other
                outputs, or a secret that is missing, too short or too long.
        """
        fitted = self.about.get("outputs")
        if outputs is not None and not any_model and outputs != (fitted or "logits"):
            raise ConfigError(
                f"this unit was fitted for a classifier that gives {fitted or 'logits'}: "
                f"outputs={outputs!r} differs"
            )
        asked = classifier_of(
            model, outputs=outputs or fitted, device=self.device, n_classes=self.n_classes,
            transforms=self._preprocessing(transforms, any_model),
        )  # fmt: skip
        found = weights_digest(model, without=self.running)
        if self.victim not in (found, earlier_weights_digest(model)) and not any_model:
            raise ConfigError(
                f"this unit was fitted for another classifier (weights {self.victim}, these are {found}): "
                "fit one for this classifier"
            )
        if self.probe is not None:
            here = classifier_of(model, outputs=outputs).outputs  # as stated now or to load_victim
            stated = here is not None or fitted == "probabilities" or (fitted is not None and not any_model)
            self.probe.check(asked, stated=stated, same=not any_model)
        return ProtectedClassifier(
            asked, self.defense, image_shape=self.image_shape, secret=check_secret(secret, self.keyed),
            device=self.device,
        )  # fmt: skip

    def _preprocessing(self, transforms: Any, any_model: bool) -> Preprocessing | None:
        """What was stated now, or when the unit was fitted.

        Raises:
            ConfigError: both were stated, differently.
        """
        kept = self.about.get("transforms")
        fitted = None if kept is None else Preprocessing.from_plain(kept)
        if transforms is None:
            return fitted
        stated = preprocessing_from(transforms)
        if stated != fitted and not any_model:
            raise ConfigError(
                f"this unit was fitted for a classifier behind {fitted or 'no transforms'}: {stated} differs"
            )
        return stated

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the two files to a folder or ``s3://bucket/prefix``.

        Args:
            overwrite: replace a unit that is there. Its privacy label and the victim that was kept with it
                are deleted, as they are of that unit.

        Raises:
            ConfigError: a folder that cannot be written, or that holds a unit already.
        """
        storage = storage_of(folder)
        if not overwrite:
            refuse_existing(folder)
        storage.check_writable()
        for name in BESIDE if overwrite else ():
            storage.delete(name)
        state = {
            name: value.detach().cpu().contiguous().clone() for name, value in self.defense.state().items()
        }
        tensors = tensors_to_bytes(state | ({} if self.probe is None else self.probe.state()))
        about = {
            "format": FORMAT,
            "version": VERSION,
            "defense": self.name,
            "config": self.config.flat(),
            "image_shape": list(self.image_shape),
            "n_classes": self.n_classes,
            "keyed": self.keyed,
            "victim": self.victim,
            "running": list(self.running),
            "about": self.about | _plugin_of(self.config),
            "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        }
        storage.write(TENSORS, tensors)
        storage.write(SETTINGS, json.dumps(about | {"sha256": digest(about)}, indent=2).encode())

    def export(self, path: str | Path) -> torch.export.ExportedProgram:
        """Write the unit alone as a program of ``torch.export`` (``.pt2``), from clean to released vectors.

        Raises:
            ConfigError: not rounding, codebook or noise; see :mod:`mipoison.serving.arithmetic`.
        """
        return export_program(self.name, self.defense, self.image_shape, self.n_classes, path)

    def export_onnx(self, path: str | Path) -> None:
        """Write the unit alone as a model of ONNX, from clean to released vectors.

        Its inputs are ``c`` (N, K), float32, with ``x`` (N, C, H, W), float32, of a codebook, or ``g``
        (N, K), float64 standard normal numbers that the caller draws, of noise. Its output is ``released``.

        Raises:
            ConfigError: not rounding, codebook or noise, or the extra ``onnx`` is not installed.
        """
        export_onnx(self.name, self.defense, self.image_shape, self.n_classes, path)


def storage_of(folder: str | Path) -> Storage:
    """The storage of a unit's files; ConfigError for what is no folder."""
    if not isinstance(folder, str | Path) or not str(folder):
        raise ConfigError(f"a unit's folder is {folder!r}: give a path, or s3://bucket/prefix")
    if "://" not in str(folder) and Path(folder).expanduser().is_file():
        raise ConfigError(f"a unit is a folder, {str(folder)!r} is a file")
    return Storage(folder)


def _plugin_of(config: Config) -> dict[str, str]:
    """The module of a configuration that a plug-in brought, for the error of who lacks it."""
    module = type(config).__module__
    return {} if module.partition(".")[0] == "mipoison" else {"plugin": module}


def refuse_existing(folder: str | Path) -> None:
    """Raise ConfigError if a folder holds a unit already."""
    storage = storage_of(folder)
    if any(storage.read(name) is not None for name in (SETTINGS, TENSORS)):
        raise ConfigError(
            f"{folder} holds a unit already: save into another folder, or replace it with overwrite=True"
        )


def unit_sha256(folder: str | Path) -> str:
    """SHA-256 (hexadecimal) of ``unit.json``, which holds the digests of the tensors and of the classifier.

    Raises:
        UnitError: there is none.
    """
    data = storage_of(folder).read(SETTINGS)
    if data is None:
        raise UnitError(f"{folder}: no {SETTINGS}; expected a folder that Unit.save wrote")
    return hashlib.sha256(data).hexdigest()


def versions() -> str:
    """The versions that a unit was fitted with."""
    return f"mipoison {metadata.version('mipoison')}, torch {torch.__version__}"


def weights_digest(model: nn.Module, *, without: Collection[str] = ()) -> str:
    """Digest of a classifier's weights: the same for the module, its export and the victim loaded from it.

    Args:
        without: see :func:`mipoison.victims.identity.state_digest`.
    """
    return state_digest(_own(model), without=without)


def earlier_weights_digest(model: nn.Module) -> str | None:
    """The digest of the weights that versions before 0.1.0 computed, and saved with their units."""
    return earlier_state_digest(_own(model))


def _own(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, LoadedVictim) else model


@own_context()
def load_unit(folder: str | Path, *, device: str | torch.device | None = None, secret: None = None) -> Unit:
    """Read a saved unit.

    Args:
        device: where it computes; default: the GPU if there is one.
        secret: none; :meth:`Unit.wrap` takes it, and this says so.

    Raises:
        UnitError: there is no unit, or one of another format version, or it was truncated or altered.
        ConfigError: a unit of an unknown defense, or a device that is not there.
    """
    if secret is not None:
        refuse_secret("load_unit")
    storage = storage_of(folder)
    target = device_from(device)
    about = _settings(storage)
    payload = storage.read(TENSORS)
    if payload is None or hashlib.sha256(payload).hexdigest() != about["tensors_sha256"]:
        fault = "is missing" if payload is None else "does not match its hash (truncated or altered)"
        raise UnitError(f"{folder}: {TENSORS} {fault}; save the unit again")
    if about["defense"] not in DEFENSES and "plugin" in about["about"]:
        raise UnitError(
            f"{folder}: defense {about['defense']!r} is of plug-in {about['about']['plugin']!r}, and code "
            "that a unit names is never loaded: if you have it and trust it, load it first (load_plugin, or "
            "--plugin)"
        )
    name = choose("defense", about["defense"], [n for n in DEFENSES if n not in retraining()])
    config = DEFENSES[name].recorded(about["config"])
    defense: Defense = config.make()
    try:
        kept = tensors_from_bytes(payload)
        probe = Probe.from_state(kept)
        # Copies are aligned in memory; the last bits of a product depend on that.
        state = {k: v.to(target, copy=True) for k, v in kept.items() if not k.startswith(PREFIX)}
        defense.load_state(state)
        fits = set(defense.state()) == set(state)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise UnitError(f"{folder}: {TENSORS} is not what {name} keeps ({type(error).__name__})") from error
    if not fits:
        raise UnitError(f"{folder}: {TENSORS} is not what {name} keeps: {sorted(state)[:3]}")
    return Unit(
        name=name, config=config, defense=defense, image_shape=tuple(about["image_shape"]),
        n_classes=about["n_classes"], keyed=about["keyed"], victim=about["victim"], device=target,
        running=tuple(about.get("running", ())), about=about["about"], probe=probe,
    )  # fmt: skip


def _settings(storage: Storage) -> dict[str, Any]:
    """The contents of ``unit.json``, after checking format, version and digest."""
    data = storage.read(SETTINGS)
    if data is None:
        raise UnitError(f"{storage.root}: no {SETTINGS}; expected a folder that Unit.save wrote")
    try:
        about = json.loads(data)
        kind, version = about["format"], about["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UnitError(
            f"{storage.root}: {SETTINGS} is damaged or not a unit's; save the unit again"
        ) from error
    if kind != FORMAT or version != VERSION:
        raise UnitError(
            f"{storage.root}: {kind} version {version}, this package reads {FORMAT} version {VERSION}; "
            "fit the unit again, or use the package that saved it"
        )
    stated = about.pop("sha256", None)
    if stated != digest(about):
        raise UnitError(f"{storage.root}: {SETTINGS} does not match its hash (truncated or altered)")
    return about
