"""A small conditional diffusion model: eps-prediction U-Net, classifier-free guidance, deterministic DDIM.

The package ``diffusers`` is not used: only conditioning on a vector and one sampler are needed, and it would
bring a download client and pipelines as dependencies.

Shape suffixes: N samples, K classes, E embedding, C channels, H height, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mipoison.models.classifier import blocks_for

LEVELS = {16: 2, 32: 3, 64: 4}
"""Number of the U-Net's resolutions by height and width in pixels; the coarsest resolution is 8 x 8."""


def cosine_alpha_bar(timesteps: int) -> Tensor:
    """Squared weight of the image after each of T noise steps, float64 (T,), decreasing in (0, 1).

    The cosine schedule of Nichol and Dhariwal 2021 (arXiv 2102.09672, Eq. 17), betas clipped at 0.999.
    """
    t = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return (1 - beta).cumprod(0)


def guided(eps_conditional: Tensor, eps_free: Tensor, guidance: float) -> Tensor:
    """``(1 + w) eps(x, t, c) - w eps(x, t, none)`` (Ho and Salimans 2022, arXiv 2207.12598)."""
    return (1 + guidance) * eps_conditional - guidance * eps_free


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 8), channels)


class _Block(nn.Module):
    """Two convolutions and a residual connection; the embedding scales and shifts what is between them."""

    def __init__(self, ins: int, outs: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(ins), nn.SiLU(), nn.Conv2d(ins, outs, 3, padding=1))
        self.modulation = nn.Linear(embedding, 2 * outs)
        self.norm = _norm(outs)
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(outs, outs, 3, padding=1))
        self.skip = nn.Identity() if ins == outs else nn.Conv2d(ins, outs, 1)

    def forward(self, x_NCHW: Tensor, e_NE: Tensor) -> Tensor:
        scale, shift = self.modulation(e_NE)[:, :, None, None].chunk(2, 1)
        return self.skip(x_NCHW) + self.second(self.norm(self.first(x_NCHW)) * (1 + scale) + shift)


class DiffusionNet(nn.Module):
    """Predicts the noise in an image, given the noise step and standardised features of a confidence vector.

    :meth:`forward` computes the training loss, so that :func:`mipoison.training.train` can train this network
    like any other: it takes rows of features and pixels side by side and returns each row's squared error of
    the predicted noise.

    Args:
        image_shape: (C, H, W), 16, 32 or 64 pixels a side.
        n_features: K. width: channels of the finest resolution. timesteps: T.
        drop: probability that a training row is trained without its condition.
    """

    alpha_bar: Tensor

    def __init__(
        self, image_shape: tuple[int, int, int], n_features: int, *, width: int, timesteps: int, drop: float
    ) -> None:
        super().__init__()
        self.image_shape, self.n_features, self.drop = image_shape, n_features, drop
        channels, size, _ = image_shape
        levels = blocks_for(size, LEVELS)
        widths = [width * (1 if i == 0 else 2) for i in range(levels)]
        self.width, embedding = width, 4 * width
        self.time = nn.Sequential(nn.Linear(2 * width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.condition = nn.Sequential(
            nn.Linear(n_features, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.nothing = nn.Parameter(torch.zeros(embedding))
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        ins = [width, *widths[:-1]]
        self.down = nn.ModuleList(_Block(a, b, embedding) for a, b in zip(ins, widths, strict=True))
        self.middle = _Block(widths[-1], widths[-1], embedding)
        outs = [*widths[-2::-1], width]
        self.up = nn.ModuleList(_Block(2 * a, b, embedding) for a, b in zip(widths[::-1], outs, strict=True))
        self.head = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))
        self.register_buffer("alpha_bar", cosine_alpha_bar(timesteps))

    def embed(self, t_N: Tensor, f_NK: Tensor, kept_N: Tensor) -> Tensor:
        """Embedding (N, E) of noise steps 0..T-1 and features; rows where ``kept_N`` is false get no
        condition."""
        rate = torch.exp(-math.log(1e4) * torch.arange(self.width, device=t_N.device) / self.width)
        angle = t_N[:, None].float() * rate
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))
        return time + torch.where(kept_N[:, None], self.condition(f_NK), self.nothing)

    def noise(self, x_NCHW: Tensor, e_NE: Tensor) -> Tensor:
        """The predicted noise (N, C, H, W) in noisy images whose pixels were scaled to [-1, 1]."""
        h = self.stem(x_NCHW)
        seen = []
        for i, block in enumerate(self.down):
            h = block(h if i == 0 else nn.functional.avg_pool2d(h, 2), e_NE)
            seen.append(h)
        h = self.middle(h, e_NE)
        for i, block in enumerate(self.up):
            h = block(torch.cat([h, seen.pop()], 1), e_NE)
            if i < len(self.up) - 1:
                h = nn.functional.interpolate(h, scale_factor=2.0, mode="nearest")
        return self.head(h)

    def forward(self, row_NP: Tensor) -> Tensor:
        """Squared errors (N,) of the noise predicted in ``sqrt(ab_t) x + sqrt(1 - ab_t) eps``.

        Args:
            row_NP: K features and then the pixels of an image in [0, 1], flattened.
        """
        f_NK, x_NCHW = (
            row_NP[:, : self.n_features],
            row_NP[:, self.n_features :].unflatten(1, self.image_shape),
        )
        t_N = torch.randint(len(self.alpha_bar), (len(x_NCHW),), device=x_NCHW.device)
        kept_N = torch.rand(len(x_NCHW), device=x_NCHW.device) >= self.drop
        eps = torch.randn_like(x_NCHW)
        noisy = diffuse(2 * x_NCHW - 1, eps, self.alpha_bar[t_N])
        return (self.noise(noisy, self.embed(t_N, f_NK, kept_N)) - eps).square().flatten(1).mean(1)


def diffuse(x_NCHW: Tensor, eps_NCHW: Tensor, alpha_bar_N: Tensor) -> Tensor:
    """``sqrt(ab) x + sqrt(1 - ab) eps``: the image after as many noise steps as ``ab`` stands for."""
    ab = alpha_bar_N.to(x_NCHW)[:, None, None, None]
    return ab.sqrt() * x_NCHW + (1 - ab).sqrt() * eps_NCHW


@torch.no_grad()
def sample(net: DiffusionNet, f_NK: Tensor, start_CHW: Tensor, *, guidance: float, steps: int) -> Tensor:
    """Images (N, C, H, W) in [0, 1] by deterministic DDIM (Song et al. 2021, arXiv 2010.02502, eta 0).

    Args:
        net: the trained network. f_NK: standardised features of the confidence vectors.
        start_CHW: the noise that every image starts from; it is the same for all, so that an image depends on
            its vector alone.
        guidance: w of :func:`guided`; with 0, a step takes one pass instead of two.
        steps: number of DDIM steps, at most T.
    """
    net.eval()
    n, ab = len(f_NK), net.alpha_bar
    times = torch.linspace(len(ab) - 1, 0, min(steps, len(ab))).round().long().unique().flip(0).tolist()
    x = start_CHW.to(f_NK).expand(n, *start_CHW.shape)
    yes = torch.ones(n, dtype=torch.bool, device=f_NK.device)
    for i, t in enumerate(times):
        t_N = torch.full((n,), t, device=f_NK.device)
        eps = net.noise(x, net.embed(t_N, f_NK, yes))
        if guidance != 0:
            eps = guided(eps, net.noise(x, net.embed(t_N, f_NK, ~yes)), guidance)
        now = float(ab[t])
        later = float(ab[times[i + 1]]) if i + 1 < len(times) else 1.0
        clean = ((x - math.sqrt(1 - now) * eps) / math.sqrt(now)).clamp(-1, 1)
        eps = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)  # the noise that fits the clamped image
        x = math.sqrt(later) * clean + math.sqrt(1 - later) * eps
    return ((x + 1) / 2).clamp(0, 1)
