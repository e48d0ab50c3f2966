"""Protect a classifier in a few lines: fit a unit, wrap the classifier, save and load the unit.

    model = load_victim("net:make", "weights.safetensors")           # or any nn.Module: images to logits
    unit = fit_unit(model, private=x_private, public=x_public, defense="tail-noise")
    unit.save("unit")
    protected = load_unit("unit").wrap(model, secret=secret)         # an nn.Module
    released = protected(x_queries)                                  # (N, K), in place of softmax(model(x))

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from mipoison.config import Config, ConfigError, choose, one_line
from mipoison.datasets import SIDES
from mipoison.defenses import DEFENSES, retraining
from mipoison.identity import entry_digests, running_entries
from mipoison.models.inversion import InversionNet, SubstituteConfig
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import SCALES, SceneConfig, clean_vectors, default_device, fit_decoder
from mipoison.service import CHUNK
from mipoison.splits import Part, halves
from mipoison.training import RECONSTRUCTION_LOSSES, seeded
from mipoison.unit import Unit, UnitError, load_unit, weights_digest
from mipoison.victim import check_victim, load_victim

__all__ = ["Unit", "UnitError", "fit_unit", "load_unit", "load_victim"]


Images = Tensor | tuple[Tensor, Tensor]
"""Images (N, C, H, W) in [0, 1], or (images, labels (N,))."""


def fit_unit(
    model: nn.Module,
    *,
    private: Images,
    public: Images,
    defense: str,
    config: Config | None = None,
    seed: int = 0,
    scale: SceneConfig | str = "quick",
    device: str | torch.device | None = None,
) -> Unit:
    """Fit a post-processing unit for a classifier.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K); put into eval mode and onto ``device``.
        private: images that the classifier was trained on; labels 0 to K-1 check the order of its outputs.
        public: other images of the same shape, such as an attacker may have: substitutes are trained on them.
            Labels keep the halves that substitutes see stratified; without, the classifier's own stand in.
        defense: a name of DEFENSES, but for those that retrain the victim.
        config: its settings; None: the defaults.
        seed: of everything random here. The secret is not chosen here: see :meth:`Unit.wrap`.
        scale: how much substitutes are trained: ``quick``, ``full``, or a study's scene for its sizes.
        device: where to compute; default: the GPU if there is one.

    Raises:
        ConfigError: a defense, setting, classifier or image that cannot be used; one line.
    """
    choose("defense", defense, [name for name in DEFENSES if name not in retraining()])
    settings = DEFENSES[defense]() if config is None else config
    if type(settings) is not DEFENSES[defense]:
        raise ConfigError(f"defense {defense!r} takes {DEFENSES[defense].__name__}, got {settings!r}")
    where = default_device() if device is None else torch.device(device)
    x_private, y_private = private if isinstance(private, tuple) else (private, None)
    x_public, y_public = public if isinstance(public, tuple) else (public, None)
    for name, x in (("private", x_private), ("public", x_public)):
        _check_images(name, x, x_private.shape[1:])
    model = model.to(where).eval()
    before = entry_digests(model)
    n_classes = _outputs(model, x_private[:2].float().to(where))
    c_private, c_public = (clean_vectors(model, x.float(), n_classes, where) for x in (x_private, x_public))
    own = _part("private", x_private, c_private.argmax(1) if y_private is None else y_private)
    other = _part("public", x_public, c_public.argmax(1) if y_public is None else y_public)
    if not bool(((own.y_N >= 0) & (own.y_N < n_classes)).all()):
        raise ConfigError(
            f"private labels must be 0 to {n_classes - 1}: the classifier has {n_classes} outputs"
        )
    x_probe, y_probe = own.x_NCHW[: 2 * CHUNK].to(where), own.y_N[: 2 * CHUNK].to(where)
    check_victim(model, type(model).__name__, x_probe, y_probe, n_classes)
    fitted: Defense = settings.make()  # type: ignore[attr-defined]
    fitted.fit(
        DefenderView(
            x_private_NCHW=own.x_NCHW,
            c_private_NK=c_private,
            y_private_N=own.y_N,
            **_substitutes(model, other, c_public, seed, scale, where),
            n_classes=n_classes,
            device=where,
        ),
        rng=generator(seed, "defense", defense),
    )
    channels, height, width = own.x_NCHW.shape[1:]
    running = running_entries(before, entry_digests(model))
    return Unit(
        name=defense, config=settings, defense=fitted, image_shape=(channels, height, width),
        n_classes=n_classes, victim=weights_digest(model, without=running), running=running, device=where,
        keyed=_draws(fitted, c_public[:CHUNK].to(where), other.x_NCHW[:CHUNK].to(where)),
        about={
            "private_images": len(own),
            "public_images": len(other),
            "seed": seed,
            "scale": scale if isinstance(scale, str) else "a scene's",
            "versions": f"mipoison {metadata.version('mipoison')}, torch {torch.__version__}",
        },
    )  # fmt: skip


def _check_images(name: str, x_NCHW: Tensor, shape: torch.Size) -> None:
    if x_NCHW.ndim != 4 or len(x_NCHW) < 4:
        raise ConfigError(f"{name}: expected at least 4 images (N, C, H, W), got {tuple(x_NCHW.shape)}")
    if x_NCHW.shape[1:] != shape:
        raise ConfigError(f"{name}: images {tuple(x_NCHW.shape[1:])}, the private ones are {tuple(shape)}")
    if not x_NCHW.is_floating_point() or not bool(((x_NCHW >= 0) & (x_NCHW <= 1)).all()):
        raise ConfigError(f"{name}: expected pixels of float in [0, 1], got {x_NCHW.dtype}")


def _part(name: str, x_NCHW: Tensor, y_N: Tensor) -> Part:
    """Images and labels as float32 and int64 on the CPU."""
    if y_N.shape != x_NCHW.shape[:1]:
        raise ConfigError(f"{name} labels: expected {len(x_NCHW)}, one an image, got {tuple(y_N.shape)}")
    return Part(x_NCHW.float().cpu(), y_N.long().cpu())


@torch.no_grad()
def _outputs(model: nn.Module, x_NCHW: Tensor) -> int:
    try:
        return int(model(x_NCHW).shape[1])
    except Exception as error:
        raise ConfigError(
            f"the classifier fails on images {tuple(x_NCHW.shape)}: {one_line(error)}"
        ) from error


def _substitutes(
    model: nn.Module,
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
        return clean_vectors(model, part.x_NCHW, n_classes, device), part.x_NCHW

    def substitute(config: SubstituteConfig) -> InversionNet:
        channels, height, width = public.x_NCHW.shape[1:]
        if height != width or height not in SIDES:
            sides = ", ".join(f"{s}x{s}" for s in SIDES)
            raise ConfigError(
                f"images of {height}x{width}: this defense trains a substitute inversion model, built for "
                f"{sides}; bring the images to one of these, or choose a defense without (tail-noise)"
            )
        if isinstance(scale, str):
            choose("scale", scale, SCALES)
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
