"""What labels alone give away of a class: prototypes behind several defenses, beside the attacker's images.

    python -m study.bench.prototypes
    python -m study.bench.prototypes --auxiliary disjoint --defenses none rounding:decimals=1 --seeds 2

Printed is a line of Markdown for each defense and seed, and the mean over the seeds. Errors are mean squared
errors per pixel to the mean private training image of the class, over classes with a prototype:

- prototype: of the search of :mod:`mipoison.attacks.prototypes`;
- own mean: of the mean of the attacker's own images that the API gave the label (of all, if it gave none);
- best own: of that one of these images which has the least error, which no attacker can tell;
- recognised: the share of all classes that the evaluator sees in the prototype, and in the own mean.

Nearest images: mean squared error to the nearest private training image of the class, and to the nearest
private test image, each the mean over subsets of as many images as both have of the class, since the nearest
of more images is nearer. A prototype that showed training images would be nearer to these than to test
images, and by more than the own mean, which has seen neither.

Where two defenses keep all labels the lines are equal, whatever else they do to vectors: ``equal`` says
whether the prototypes are those of the first defense, pixel by pixel. So no defense of the vector removes
them. They are what the label gives away, and no part of excess leakage, which is what vectors add to it.

Shape suffixes: N images, K classes, n images of one class, D pixels, CHW image.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from mipoison.attacks.prototypes import PrototypeConfig
from mipoison.config import Config, ConfigError, choose
from mipoison.data.images import DataError
from mipoison.defenses import DEFENSES
from mipoison.deployment import deploy
from mipoison.metrics.statistics import mean_interval
from mipoison.models.label_means import label_means
from mipoison.randomness import generator
from mipoison.scene import Scene, prepare, scaled
from mipoison.service import DefendedService, MeteredOracle
from mipoison.simplex import label_of
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from study.trial.rerun import changed

HEAD = (
    "defense", "seed", "found", "recognised / own mean's", "prototype", "own mean", "best own",
    "nearest train / test", "own mean's", "queries", "equal",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Prototypes of all classes with labels alone, behind several defenses."""

    dataset: str = "digits"
    """as for study/pareto.py"""
    auxiliary: Literal["same", "disjoint"] = "same"
    """whether the attacker has images of the private classes or of others"""
    scale: str = "quick"
    """sizes and training of the victim"""
    limit: int | None = None
    """at most so many training images a side; default: the scale's"""
    seeds: int = 3
    """victims and splits"""
    first_seed: int = 0
    """first seed"""
    defenses: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME[:KNOB=VALUE,...] [...]")] = (
        "none", "label-only", "rounding:decimals=1", "lpa:budget=0.01", "lfp",
    )  # fmt: skip
    """defenses, with knobs that differ from their defaults"""
    queries: int = PrototypeConfig.queries
    """asked for each class at most"""
    components: int = PrototypeConfig.components
    """principal components of the attacker's images"""
    clear: float = PrototypeConfig.clear
    """share of a sphere's points that have to get the label for it to grow"""
    data_root: Path | None = None
    """data folder"""
    storage: Path | None = None
    """folder for trained parts; default: a temporary one"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured behind one defense; means over classes with a prototype, None where there is none.

    Attributes:
        seed: None for a mean over seeds.
        found: share of the classes with a prototype.
        recognised: share of the classes whose prototype the evaluator takes for its class.
        mean_recognised: the same of the own mean, of all classes.
        error, mean_error, best_error: of prototype, own mean and best own image.
        train, test: of the prototypes, to the nearest private training and test image.
        mean_train, mean_test: the same of the own mean.
        queries: asked for all classes, starts included.
        equal: share of the seeds with the prototypes of the first defense.
    """

    defense: str
    seed: int | None
    found: float
    recognised: float
    mean_recognised: float
    error: float | None
    mean_error: float | None
    best_error: float | None
    train: float | None
    test: float | None
    mean_train: float | None
    mean_test: float | None
    queries: float
    equal: float

    @property
    def nearer(self) -> float | None:
        """How much nearer prototypes are to training than to test images, beyond the own mean: relative."""
        gaps = (self.train, self.test), (self.mean_train, self.mean_test)
        if any(value is None or value <= 0 for gap in gaps for value in gap):
            return None
        (train, test), (mean_train, mean_test) = gaps
        assert None not in (train, test, mean_train, mean_test)
        return 1 - (train / test) / (mean_train / mean_test)  # type: ignore[operator]

    def cells(self) -> list[str]:
        """A cell for each column of HEAD."""

        def text(value: float | None) -> str:
            return "-" if value is None else f"{value:.4f}"

        return [
            self.defense,
            "mean" if self.seed is None else str(self.seed),
            f"{self.found:.2f}",
            f"{self.recognised:.2f} / {self.mean_recognised:.2f}",
            *(text(value) for value in (self.error, self.mean_error, self.best_error)),
            f"{text(self.train)} / {text(self.test)}",
            f"{text(self.mean_train)} / {text(self.mean_test)}",
            f"{self.queries:,.0f}",
            f"{self.equal:.2f}",
        ]


def setting(text: str) -> tuple[str, Config]:
    """The defense of ``name:knob=value,...``.

    Raises:
        ConfigError: an unknown name or knob, or an impossible value.
    """
    name, _, knobs = text.partition(":")
    cls = DEFENSES[choose("defense", name, DEFENSES)]
    return name, changed(cls, {}, [knob for knob in knobs.split(",") if knob])


def expected_nearest(distance_n: Tensor, m: int) -> float:
    """Mean over all subsets of m of their least distance; m from 1 to n."""
    n = len(distance_n)
    if not 1 <= m <= n:
        raise ValueError(f"m = {m}: must be between 1 and the {n} distances")
    # Sorted, the i-th (from 0) is the least of C(n - 1 - i, m - 1) subsets: each ratio follows from the last.
    total, share = 0.0, m / n
    for i, distance in enumerate(distance_n.double().sort().values.tolist()[: n - m + 1]):
        total += share * distance
        share *= (n - m - i) / (n - 1 - i) if i < n - 1 else 0.0
    return total


def _nearest(x_D: Tensor, pools: tuple[Tensor, Tensor]) -> tuple[float, float] | None:
    """Errors of an image to the nearest of two pools (n, D), as if equally large; None: one is empty."""
    m = min(len(pool) for pool in pools)
    if m == 0:
        return None
    train, test = (expected_nearest((pool - x_D).square().mean(1), m) for pool in pools)
    return train, test


def measure(
    scene: Scene, service: DefendedService, defense: str, config: PrototypeConfig
) -> tuple[Row, Tensor]:
    """Search prototypes behind a defense and compare them with the private images.

    Returns:
        The row, with ``equal`` = 1, and the prototypes (K, D), float32, NaN where there is none.
    """
    split, seed = scene.split, scene.config.seed
    oracle = MeteredOracle(service.session(), split.n_classes)
    own_NCHW = split.attack_train.x_NCHW
    found = config.make().search(oracle, own_NCHW, rng=generator(seed, "prototypes"))
    queries = oracle.queries
    label_N, own_ND = label_of(oracle.query(own_NCHW)), own_NCHW.double().flatten(1)
    mean_KD = label_means(label_N, own_ND, split.n_classes)
    mean_KCHW = mean_KD.float().reshape(-1, *split.image_shape)
    mean_recognised = scene.recognised(scene.evaluator, mean_KCHW, torch.arange(split.n_classes))
    image_KD = torch.full((split.n_classes, own_ND.shape[1]), torch.nan)
    recognised, errors, nearest = 0.0, list[tuple[float, ...]](), list[tuple[float, ...]]()
    for k, one in enumerate(found.classes):
        if one is None:
            continue
        recognised += scene.recognised(scene.evaluator, one.image_CHW[None], torch.tensor([k]))
        image_KD[k] = one.image_CHW.flatten()
        x_D = image_KD[k].double()
        parts = (split.private_train, split.private_test)
        pools = tuple(part.x_NCHW[part.y_N == k].double().flatten(1) for part in parts)
        center_D = pools[0].mean(0)
        mine_ND = own_ND[label_N == k] if (label_N == k).any() else own_ND
        errors.append(
            (
                float((x_D - center_D).square().mean()),
                float((mean_KD[k] - center_D).square().mean()),
                float((mine_ND - center_D).square().mean(1).min()),
            )
        )
        both = [_nearest(x, (pools[0], pools[1])) for x in (x_D, mean_KD[k])]
        if both[0] is not None and both[1] is not None:
            nearest.append(both[0] + both[1])
    error, mean_error, best_error = _means(errors, 3)
    train, test, mean_train, mean_test = _means(nearest, 4)
    row = Row(
        defense=defense, seed=seed, found=1 - len(found.missing) / split.n_classes,
        recognised=recognised / split.n_classes, mean_recognised=mean_recognised, error=error,
        mean_error=mean_error, best_error=best_error, train=train, test=test, mean_train=mean_train,
        mean_test=mean_test, queries=queries, equal=1.0,
    )  # fmt: skip
    return row, image_KD


def _means(rows: Sequence[tuple[float, ...]], width: int) -> list[float | None]:
    return [statistics.fmean(column) for column in zip(*rows, strict=True)] if rows else [None] * width


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean over the seeds of one defense; None where a seed has none."""
    values: dict[str, float | None] = {}
    for field in dataclasses.fields(Row)[2:]:
        column = [getattr(row, field.name) for row in rows]
        values[field.name] = None if None in column else statistics.fmean(column)
    return Row(defense=rows[0].defense, seed=None, **values)  # type: ignore[arg-type]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def run(chosen: Arguments, storage: Path) -> None:
    """Measure and print."""
    settings = [(text, *setting(text)) for text in chosen.defenses]
    config = PrototypeConfig(queries=chosen.queries, components=chosen.components, clear=chosen.clear)
    rows: dict[str, list[Row]] = {text: [] for text, _, _ in settings}
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
        scene = prepare(
            scaled(chosen.dataset, chosen.scale, auxiliary=chosen.auxiliary, seed=seed, limit=chosen.limit),
            ArtifactStore(Storage(storage)),
            data_root=chosen.data_root,
        )
        if seed == chosen.first_seed:
            split = scene.split
            print(
                f"{chosen.dataset}, auxiliary {chosen.auxiliary}, scale {chosen.scale}, {chosen.seeds} seeds "
                f"from {seed}, {scene.device.type}; {split.n_classes} private classes, images: "
                f"{len(split.private_train)} private training, {len(split.private_test)} private test, "
                f"{len(split.attack_train)} of the attacker; {config.components} components, at most "
                f"{config.queries:,} queries a class, spheres grow at {config.clear:g} clear\n\n"
                + _line(HEAD)
                + "\n"
                + _line(["---"] * len(HEAD)),
                flush=True,
            )
        first = None
        for text, name, defense in settings:
            row, image_KD = measure(scene, deploy(scene, name, defense).service, text, config)
            first = image_KD if first is None else first
            row = dataclasses.replace(
                row, equal=float(torch.equal(first.nan_to_num(-1), image_KD.nan_to_num(-1)))
            )
            rows[text].append(row)
            print(_line(row.cells()), flush=True)
    for of_one in rows.values():
        print(_line(mean_row(of_one).cells()))
    print()
    for text, of_one in rows.items():
        gaps = [row.nearer for row in of_one if row.nearer is not None]
        if gaps:
            found = mean_interval(gaps)
            interval = "" if found.low is None else f" [{found.low:+.1%}, {found.high:+.1%}]"
            print(f"{text}: nearer to training images by {found.mean:+.1%}{interval} beyond the own mean")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit code 2 for settings or data that cannot be used."""
    chosen = tyro.cli(Arguments, args=arguments, prog="python -m study.bench.prototypes")
    try:
        if chosen.seeds < 1 or not chosen.defenses or len(set(chosen.defenses)) < len(chosen.defenses):
            raise ConfigError(
                f"seeds = {chosen.seeds}, defenses = {' '.join(chosen.defenses)!r}: must be at least 1 seed "
                "and at least 1 defense, each named once"
            )
        with tempfile.TemporaryDirectory(prefix="mipoison-") as scratch:
            run(chosen, chosen.storage or Path(scratch))
    except (ConfigError, DataError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
