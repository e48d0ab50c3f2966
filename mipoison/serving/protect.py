"""Protect a classifier in a few lines: fit a unit, wrap the classifier, save and load the unit.

    model = load_victim("net:make", "weights.safetensors")           # or any nn.Module: images to logits
    unit = fit_unit(model, private=x_private, public=x_public, defense="tail-noise")
    unit.save("unit")
    protected = load_unit("unit").wrap(model, secret=secret)         # an nn.Module
    released = protected(x_queries)                                  # (N, K), in place of softmax(model(x))

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mipoison.config import Config, ConfigError, choose
from mipoison.data.datasets import SIDES
from mipoison.data.splits import Part, halves
from mipoison.defenses import DEFENSES, retraining
from mipoison.models.inversion import InversionNet, SubstituteConfig
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import SCALES, SceneConfig, clean_vectors, fit_decoder
from mipoison.service import CHUNK
from mipoison.serving.arguments import check_labels, device_from, images_and_labels
from mipoison.serving.probe import Probe
from mipoison.serving.unit import Unit, UnitError, load_unit, weights_digest
from mipoison.training import RECONSTRUCTION_LOSSES, seeded
from mipoison.victims.ask import Classifier, classifier_of, undone
from mipoison.victims.check import check_victim
from mipoison.victims.identity import entry_digests, running_entries
from mipoison.victims.own import load_victim

__all__ = ["Unit", "UnitError", "fit_unit", "load_unit", "load_victim"]


Images = Tensor | tuple[Tensor, Tensor]
"""Images (N, C, H, W) in [0, 1], or (images, labels (N,))."""


@undone()
def fit_unit(
    model: nn.Module,
    *,
    private: Images,
    public: Images,
    defense: str,
    config: Config | Mapping[str, Any] | None = None,
    outputs: str | None = None,
    seed: int = 0,
    scale: SceneConfig | str = "quick",
    device: str | torch.device | None = None,
) -> Unit:
    """Fit a post-processing unit for a classifier.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K), asked as
            :class:`mipoison.victims.ask.Classifier` says. It is not changed: if it is on another device, a
            copy on ``device`` answers.
        private: images that the classifier was trained on; labels 0 to K-1 check the order of its outputs.
        public: other images of the same shape, such as an attacker may have: substitutes are trained on them.
            Labels keep the halves that substitutes see stratified; without, the classifier's own stand in.
        defense: a name of DEFENSES, but for those that retrain the victim.
        config: its settings, or some of them by name; None: the defaults.
        outputs: ``probabilities`` where the classifier gives these (each vector is divided by its sum), or
            ``logits``, which are then not checked; None: logits, refused where they look like probabilities.
        seed: of everything random here. The secret is not chosen here: see :meth:`Unit.wrap`.
        scale: how much substitutes are trained: ``quick``, ``full``, or a study's scene for its sizes.
        device: where to compute; default: the GPU if there is one.

    Raises:
        ConfigError: a defense, setting, classifier or image that cannot be used; one line.
    """
    settings = _settings(defense, config)
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
    asked = classifier_of(model, outputs=outputs, device=where)
    before = entry_digests(asked.module)  # before it is asked anything
    n_classes = _count_outputs(asked, x_private[:2], y_private)
    check_labels("private", y_private, n_classes)
    check_victim(asked, x_private, y_private, n_classes)
    running_entries(asked.module, before)  # refuses early weights that change
    c_private, c_public = (clean_vectors(asked, x, n_classes, where) for x in (x_private, x_public))
    own = Part(x_private, c_private.argmax(1) if y_private is None else y_private)
    other = Part(x_public, c_public.argmax(1) if y_public is None else y_public)
    fitted: Defense = settings.make()
    fitted.fit(
        DefenderView(
            x_private_NCHW=own.x_NCHW,
            c_private_NK=c_private,
            y_private_N=own.y_N,
            **_substitutes(asked, other, c_public, seed, scale, where),
            n_classes=n_classes,
            device=where,
        ),
        rng=generator(seed, "defense", defense),
    )
    probe = Probe.of(asked, other.x_NCHW, other.y_N, c_public)
    channels, height, width = own.x_NCHW.shape[1:]
    running = running_entries(asked.module, before)
    return Unit(
        name=defense, config=settings, defense=fitted, image_shape=(channels, height, width),
        n_classes=n_classes, victim=weights_digest(model, without=running), running=running, device=where,
        probe=probe,
        keyed=_draws(fitted, c_public[:CHUNK].to(where), other.x_NCHW[:CHUNK].to(where)),
        about={
            "private_images": len(own),
            "public_images": len(other),
            "seed": seed,
            "scale": scale if isinstance(scale, str) else "a scene's",
            "versions": f"mipoison {metadata.version('mipoison')}, torch {torch.__version__}",
            **({} if asked.outputs is None else {"outputs": asked.outputs}),
        },
    )  # fmt: skip


def _settings(defense: str, config: Config | Mapping[str, Any] | None) -> Config:
    choose("defense", defense, [name for name in DEFENSES if name not in retraining()])
    kind = DEFENSES[defense]
    if config is None:
        return kind()
    if isinstance(config, Mapping):
        return kind.from_flat({str(name): value for name, value in config.items()})
    if type(config) is not kind:
        raise ConfigError(f"defense {defense!r} takes {kind.__name__}, got {config!r}")
    return config


def _count_outputs(asked: Classifier, x_NCHW: Tensor, y_N: Tensor | None) -> int:
    """K, from now on expected of the classifier; labels tell logits from the other outputs of a tuple."""
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
) -> dict[str, Any]:
    """A view's ``substitute`` and ``substitute_data``: trained as a scene's are, without a scene."""
    n_classes = c_public.shape[1]
    shares = dict(zip(("D1", "D2"), halves(public, seed=seed), strict=True)) | {"all": public}

    def substitute_data(config: SubstituteConfig) -> tuple[Tensor, Tensor]:
        part = shares[config.data]
        if config.data == "all":
            return c_public, part.x_NCHW
        return clean_vectors(asked, part.x_NCHW, n_classes, device), part.x_NCHW

    def substitute(config: SubstituteConfig) -> InversionNet:
        channels, height, width = public.x_NCHW.shape[1:]
        if height != width or height not in SIDES:
            sides = ", ".join(f"{s}x{s}" for s in SIDES)
            raise ConfigError(
                f"images of {height}x{width}: this defense trains a substitute inversion model, built for "
                f"{sides}; bring the images to one of these (torch.nn.functional.interpolate(images, "
                f"64)) and "
                "let the classifier resize to what it needs in its forward, or choose a defense without "
                "(tail-noise)"
            )
        if isinstance(scale, str):
            sizes = SceneConfig(**SCALES[scale][height])
        else:
            sizes = scale
        c, x = substitute_data(config)
        rng = generator(seed, "substitute", config.digest())
        with seeded(rng, device):
            net = config.architecture(sizes.decoder_width).make((channels, height, width), n_classes)
        loss = RECONSTRUCTION_LOSSES[config.loss]
        fit_decoder(net.to(device), c.to(device), x.to(device), loss, sizes, rng)
        return net.requires_grad_(False).eval()

    return {"substitute": substitute, "substitute_data": substitute_data}


class _Watched(QueryRandomness):
    """Notes whether anything was drawn."""

    drawn = False

    def uniform(self, width: int, stream: str) -> Tensor:
        self.drawn = True
        return super().uniform(width, stream)


def _draws(defense: Defense, c_NK: Tensor, x_NCHW: Tensor) -> bool:
    """Whether a secret keys its answers: tried, on vectors that are all picked."""
    rng = _Watched(content_keys(x_NCHW, b"probe"))
    defense.protect(c_NK, x_NCHW, torch.ones(len(c_NK), dtype=torch.bool, device=c_NK.device), rng=rng)
    return rng.drawn and not defense.fresh
