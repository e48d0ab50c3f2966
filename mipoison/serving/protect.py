"""Protect a classifier in a few lines: fit a unit, save it, load it, wrap the classifier in it.

    model = load_victim("net:make", "weights.safetensors")           # or any nn.Module: images to logits
    unit = fit_unit(model, private=x_private, public=x_public, defense="rounding", decimals=1)
    unit.save("unit")
    protected = load_unit("unit").wrap(model)                        # an nn.Module
    released = protected(x_queries)                                  # (N, K), in place of softmax(model(x))

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mipoison.config import Config, ConfigError, Plain, choose, ranges
from mipoison.data.datasets import SIDES
from mipoison.data.splits import Part, halves
from mipoison.defenses import DEFENSES, retraining
from mipoison.defenses.pipeline import victim_of
from mipoison.defenses.substitutes import Substitutes
from mipoison.process import own_context
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import generator
from mipoison.scene_config import SCALES, SceneConfig
from mipoison.service import clean_vectors
from mipoison.serving.arguments import check_labels, device_from, images_and_labels
from mipoison.serving.probe import Probe
from mipoison.serving.unit import Unit, UnitError, load_unit, versions, weights_digest
from mipoison.serving.wrap import refuse_secret
from mipoison.victims.ask import Classifier, classifier_of
from mipoison.victims.check import check_victim
from mipoison.victims.identity import entry_digests, running_entries
from mipoison.victims.own import load_victim
from mipoison.victims.preprocess import preprocessing_from

__all__ = ["Unit", "UnitError", "fit_unit", "load_unit", "load_victim"]


Images = Tensor | tuple[Tensor, Tensor]
"""Images (N, C, H, W) in [0, 1], or (images, labels (N,))."""


@own_context()
def fit_unit(
    model: nn.Module,
    *,
    private: Images,
    public: Images,
    defense: str,
    config: Config | Mapping[str, Any] | None = None,
    outputs: str | None = None,
    transforms: Any = None,
    seed: int = 0,
    scale: SceneConfig | str = "quick",
    device: str | torch.device | None = None,
    **knobs: Plain,
) -> Unit:
    """Fit a post-processing unit for a classifier.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K), asked as
            :class:`mipoison.victims.ask.Classifier` says. It is not changed: if it is on another device, a
            copy on ``device`` answers.
        private: images that the classifier was trained on. With labels 0 to K-1, it is checked that they are
            in the order of the classifier's outputs.
        public: other images of the same shape, such as an attacker may have. Substitutes are trained on
            halves of them, stratified by the labels, or without labels by the classifier's predictions.
        defense: a name of DEFENSES; not one that retrains the victim.
        config: the defense's settings, or some of them by name; None: the defaults.
        outputs: what the classifier returns. ``probabilities``: each vector is divided by its sum.
            ``logits``: taken as they are. None: logits, and an error if they look like probabilities.
        transforms: what happens to images before the classifier sees them, if it does not do so itself:
            ``weights.transforms()`` of torchvision, an image processor of Hugging Face, or another form of
            :func:`mipoison.victims.preprocess.preprocessing_from`. The unit keeps it as plain data.
        seed: seeds all random numbers here. The secret is given later, to :meth:`Unit.wrap`.
        scale: how much substitutes are trained: ``quick``, ``full``, or as the decoders of a study's scene.
        device: where to compute; default: the GPU if there is one.
        knobs: the defense's settings by name, ``steps=10``; they change those of ``config``.

    Raises:
        ConfigError: a defense, setting, classifier or image that cannot be used. The message is one line.
    """
    settings = _settings(defense, config, knobs)
    seed = int(seed) if isinstance(seed, np.integer) else seed
    if type(seed) is not int or seed < 0:
        raise ConfigError(f"seed = {seed!r}: must be a whole number, 0 or more")
    if not isinstance(scale, SceneConfig):
        choose("scale", scale, SCALES)
    where = device_from(device)
    x_private, y_private = images_and_labels("private", private)
    x_public, y_public = images_and_labels("public", public)
    if x_public.shape[1:] != x_private.shape[1:]:
        raise ConfigError(
            f"public: images {tuple(x_public.shape[1:])}, the private ones are {tuple(x_private.shape[1:])}"
        )
    stated = None if transforms is None else preprocessing_from(transforms)
    asked = classifier_of(model, outputs=outputs, device=where, transforms=stated)
    before = entry_digests(asked.module)  # before the first images, which may change its buffers
    n_classes = _count_outputs(asked, x_private[:2], y_private)
    check_labels("private", y_private, n_classes)
    check_victim(asked, x_private, y_private, n_classes)
    running_entries(asked.module, before)  # weights that changed raise here, before anything is trained
    c_private, c_public = (clean_vectors(asked, x, n_classes, where) for x in (x_private, x_public))
    own = Part(x_private, c_private.argmax(1) if y_private is None else y_private)
    other = Part(x_public, c_public.argmax(1) if y_public is None else y_public)
    substitutes = _substitutes(asked, other, c_public, seed, scale, where)
    fitted: Defense = settings.make()
    fitted.fit(
        DefenderView(
            x_private_NCHW=own.x_NCHW,
            c_private_NK=c_private,
            y_private_N=own.y_N,
            substitute=substitutes.network,
            substitute_data=substitutes.data,
            n_classes=n_classes,
            device=where,
            ask=victim_of(asked, n_classes, where),
        ),
        rng=generator(seed, "defense", defense),
    )
    channels, height, width = own.x_NCHW.shape[1:]
    probe = Probe.of(asked, (channels, height, width))
    running = running_entries(asked.module, before)
    return Unit(
        name=defense, config=settings, defense=fitted, image_shape=(channels, height, width),
        n_classes=n_classes, victim=weights_digest(model, without=running), running=running, device=where,
        probe=probe, keyed=fitted.draws and not fitted.fresh,
        about={
            "private_images": len(own),
            "public_images": len(other),
            "seed": seed,
            "scale": scale if isinstance(scale, str) else "a scene's",
            "versions": versions(),
            **({} if asked.outputs is None else {"outputs": asked.outputs}),
            **({} if stated is None else {"transforms": stated.plain()}),
        },
    )  # fmt: skip


def _settings(defense: str, config: Config | Mapping[str, Any] | None, knobs: Mapping[str, Plain]) -> Config:
    """The defense's configuration.

    Raises:
        ConfigError: an unknown name (the message lists all with their ranges), or a value out of bounds.
    """
    choose("defense", defense, [name for name in DEFENSES if name not in retraining()])
    kind = DEFENSES[defense]
    if isinstance(config, Config):
        if type(config) is not kind:
            raise ConfigError(f"defense {defense!r} takes {kind.__name__}, got {config!r}")
        config = config.flat()
    elif config is not None and not isinstance(config, Mapping):
        raise ConfigError(
            f"config is a {type(config).__name__}: give a dictionary of settings, or {kind.__name__}(...)"
        )
    given = {str(name): value for name, value in (config or {}).items()} | dict(knobs)
    if "secret" in given and "secret" not in kind.field_kinds():
        refuse_secret("fit_unit")
    for name in given:
        if name not in kind.field_kinds():
            near = difflib.get_close_matches(name, kind.field_kinds(), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            takes = "; ".join(ranges(kind)) or "no setting"
            raise ConfigError(f"defense {defense!r} has no setting {name!r}{hint}; it takes {takes}")
    return kind.from_flat(given)


def _count_outputs(asked: Classifier, x_NCHW: Tensor, y_N: Tensor | None) -> int:
    """K, which the classifier must give from now on.

    Where the classifier returns several tensors and it is not clear which are the logits, the largest label
    tells K.
    """
    try:
        found = asked(x_NCHW)
    except ConfigError:
        if y_N is None:
            raise
        asked.n_classes = int(y_N.max()) + 1
        found = asked(x_NCHW)
    asked.n_classes = found.shape[1]
    return asked.n_classes


def _substitutes(
    asked: Classifier,
    public: Part,
    c_public: Tensor,
    seed: int,
    scale: SceneConfig | str,
    device: torch.device,
) -> Substitutes:
    n_classes = c_public.shape[1]
    parts = zip(("D1", "D2", "all"), (*halves(public, seed=seed), public), strict=True)
    return Substitutes(
        clean=lambda x: clean_vectors(asked, x, n_classes, device),
        shares={name: part.x_NCHW for name, part in parts},
        c_all_NK=c_public,
        sizes=lambda: _sizes(scale, *public.x_NCHW.shape[2:]),
        seed=seed,
        device=device,
    )


def _sizes(scale: SceneConfig | str, height: int, width: int) -> SceneConfig:
    """How much substitutes for images of this size are trained.

    Raises:
        ConfigError: there is no substitute for images of this size.
    """
    if height != width or height not in SIDES:
        sides = ", ".join(f"{s}x{s}" for s in SIDES)
        raise ConfigError(
            f"images of {height}x{width}: this defense trains a substitute inversion model, which is built "
            f"for {sides}; resize the images to one of these (torch.nn.functional.interpolate(images, 64)) "
            "and let the classifier resize to what it needs in its forward, or choose a defense without a "
            "substitute (rounding)"
        )
    return SceneConfig(**SCALES[scale][height]) if isinstance(scale, str) else scale
