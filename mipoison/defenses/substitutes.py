"""How a defender's substitute inversion models are trained: in a study's scene and for a unit alike.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from mipoison.models.inversion import InversionNet, SubstituteConfig
from mipoison.process import own_context
from mipoison.protocols import Trained, train_anew
from mipoison.randomness import generator
from mipoison.training import RECONSTRUCTION_LOSSES, Loss, seeded, train


class DecoderSizes(Protocol):
    """How large inversion models are and how long they are trained. A ``SceneConfig`` has these fields."""

    @property
    def decoder_width(self) -> int: ...

    @property
    def decoder_steps(self) -> int: ...

    @property
    def decoder_batch(self) -> int: ...

    @property
    def decoder_lr(self) -> float: ...


def fit_decoder(
    model: nn.Module, c_NK: Tensor, x_NCHW: Tensor, loss: Loss, sizes: DecoderSizes, rng: torch.Generator
) -> nn.Module:
    """Train an inversion model with the optimiser of Yang et al. (Adam, betas 0.5 and 0.999, amsgrad)."""
    return train(
        model, c_NK, x_NCHW, loss,
        steps=sizes.decoder_steps, batch=sizes.decoder_batch, lr=sizes.decoder_lr,
        betas=(0.5, 0.999), amsgrad=True, rng=rng,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Substitutes:
    """Trains the substitutes that a defense asks for, on clean (vector, image) pairs of the public images.

    Attributes:
        clean: images to clean vectors (N, K) on the CPU.
        shares: share of the public images (``D1``, ``D2``, ``all``) -> its images.
        c_all_NK: clean vectors of the share ``all``, which are computed already.
        sizes: how large and how long; called when a substitute is asked for. It raises an error where images
            of this shape can have none.
        seed: of initialisation and order of the pairs.
        device: where to train.
        trained: loads a substitute that was trained before, if it has a store.
    """

    clean: Callable[[Tensor], Tensor]
    shares: Mapping[str, Tensor]
    c_all_NK: Tensor
    sizes: Callable[[], DecoderSizes]
    seed: int
    device: torch.device
    trained: Trained = train_anew

    def data(self, config: SubstituteConfig) -> tuple[Tensor, Tensor]:
        """Clean vectors and images of the share that a substitute is trained on."""
        x_NCHW = self.shares[config.data]
        return (self.c_all_NK if config.data == "all" else self.clean(x_NCHW)), x_NCHW

    @own_context()
    def network(self, config: SubstituteConfig) -> InversionNet:
        """A trained substitute: in eval mode, on the device, its parameters requiring no gradients."""
        sizes = self.sizes()
        architecture = config.architecture(sizes.decoder_width)
        channels, height, width = self.shares["all"].shape[1:]
        shape, n_classes = (channels, height, width), self.c_all_NK.shape[1]

        def make() -> dict[str, Tensor]:
            c_NK, x_NCHW = self.data(config)
            rng = generator(self.seed, "substitute", config.digest())
            with seeded(rng, self.device):
                fresh = architecture.make(shape, n_classes)
            loss = RECONSTRUCTION_LOSSES[config.loss]
            pairs = c_NK.to(self.device), x_NCHW.to(self.device)
            return fit_decoder(fresh.to(self.device), *pairs, loss, sizes, rng).state_dict()

        with torch.device("meta"):  # weights are not initialised: nothing is drawn from the global generator
            network = architecture.make(shape, n_classes)
        state = self.trained("substitute", config.flat(), make, network.state_dict())
        network.load_state_dict(state, assign=True)
        return network.requires_grad_(False).eval().to(self.device)
